/** jax-js, every function compiled by its `jit`; its figure waits for the device and copies nothing. */
import type { Shape } from '../../../engine/index.ts';
import { waitFor } from '../../../engine/node.ts';
import { describeCase } from '../cases.ts';
import type { Case } from '../cases.ts';
import { pretendBrowser } from './dawn.ts';
import { caseData, sumOfSquares } from './engine.ts';
import type { Open } from './engine.ts';

/** What is used of the package. A value is consumed by the function that takes it; `ref` is one more hold on it. */
interface Jax {
  init(): Promise<unknown>;
  defaultDevice(name: string): void;
  numpy: { array(data: Float32Array): Value; matmul(a: Value, b: Value): Value };
  lax: { conv(x: Value, weight: Value, strides: number[], padding: [number, number][]): Value };
  nn: { softmax(x: Value, axis: number): Value; standardize(x: Value, axis: number): Value };
  jit<F extends (...inputs: Value[]) => unknown>(f: F): F & { dispose(): void };
  vjp(f: (...inputs: Value[]) => Value, inputs: Value[]): [Value, (upstream: Value) => Value[]];
}
interface Value {
  readonly ref: Value;
  reshape(shape: Shape): Value;
  transpose(order: number[]): Value;
  mul(other: Value | number): Value;
  add(other: Value): Value;
  data(): Promise<Float32Array>;
  blockUntilReady(): Promise<unknown>;
  dispose(): void;
}

function call({ numpy, lax, nn }: Jax, c: Case): (...inputs: Value[]) => Value {
  switch (c.op) {
    case 'matmul':
      return (a, b) => numpy.matmul(a!, b!);
    case 'conv2d': {
      const pad = (c.kernel - 1) / 2;
      return (x, weight) => lax.conv(x!, weight!, [c.stride, c.stride], [[pad, pad], [pad, pad]]); // prettier-ignore
    }
    case 'attention':
      return (q, k, v) => {
        const scores = numpy.matmul(q!, k!.transpose([0, 1, 3, 2])).mul(1 / Math.sqrt(c.dim));
        return numpy.matmul(nn.softmax(scores, -1), v!);
      };
    case 'layernorm':
      return (x, weight, bias) => nn.standardize(x!, -1).mul(weight!).add(bias!);
    case 'softmax':
      return (x) => nn.softmax(x!, -1);
  }
}

export const open: Open = async (load) => {
  pretendBrowser();
  const jax = load('@jax-js/jax') as Jax;
  await jax.init();
  jax.defaultDevice('webgpu');
  return (c, pass) => {
    const { inputs, upstream } = caseData(c);
    const upload = () => inputs.map(({ data, shape }) => jax.numpy.array(data).reshape(shape));
    const resident = upload();
    const dy = jax.numpy.array(upstream).reshape(describeCase(c).output);
    const f = call(jax, c);
    const forward = jax.jit((...values: Value[]) => f(...values));
    const gradients = jax.jit((dy: Value, ...values: Value[]) => {
      const [result, back] = jax.vjp(f, values);
      result.dispose();
      return back(dy);
    });
    const held = () => resident.map((value) => value.ref);
    const evaluate = () => (pass === 'gradient' ? gradients(dy.ref, ...held()) : [forward(...held())]);
    const onDevice = async () => {
      const results = evaluate();
      for (const result of results) await waitFor(result.blockUntilReady());
      for (const result of results) result.dispose();
    };
    const copies = async () => void (await waitFor(forward(...upload()).data()));
    const check = async () => sumOfSquares(...(await Promise.all(evaluate().map((result) => waitFor(result.data())))));
    const release = () => {
      for (const value of [...resident, dy, forward, gradients]) value.dispose();
    };
    return Promise.resolve({ run: pass === 'copies' ? copies : onDevice, check, release });
  };
};
