/**
 * TensorFlow.js with its WebGPU backend, whose public way to wait is to read: the first element of the result is in its
 * figure, one slice and four bytes. It has no fused attention and no layer norm: they are composed, as its users do.
 */
import type { Shape } from '../../../engine/index.ts';
import { waitFor } from '../../../engine/node.ts';
import { describeCase } from '../cases.ts';
import type { Case } from '../cases.ts';
import { pretendBrowser } from './dawn.ts';
import { caseData, permute, sumOfSquares } from './engine.ts';
import type { Open } from './engine.ts';

/** What is used of the package. */
interface Tf {
  setBackend(name: string): Promise<boolean>;
  ready(): Promise<void>;
  tensor(data: Float32Array, shape: Shape): Value;
  matMul(a: Value, b: Value, transposeA?: boolean, transposeB?: boolean): Value;
  conv2d(x: Value, filter: Value, stride: number, pad: number): Value;
  softmax(x: Value): Value;
  mul(a: Value, b: Value | number): Value;
  add(a: Value, b: Value | number): Value;
  sub(a: Value, b: Value): Value;
  rsqrt(x: Value): Value;
  moments(x: Value, axis: number, keepDims: boolean): { mean: Value; variance: Value };
  slice(x: Value, begin: Shape, size: Shape): Value;
  tidy<T>(body: () => T): T;
  grads(f: (...inputs: Value[]) => Value): (inputs: Value[], upstream: Value) => Value[];
}
interface Value {
  readonly shape: Shape;
  data(): Promise<Float32Array>;
  dispose(): void;
}

/** Its convolutions take (batch, height, width, channels) and (height, width, in, out). */
const LAYOUTS = { input: [0, 2, 3, 1], weight: [2, 3, 1, 0] };
const reorder = (shape: Shape, order: readonly number[]) => order.map((axis) => shape[axis]!);

function call(tf: Tf, c: Case): (...inputs: Value[]) => Value {
  switch (c.op) {
    case 'matmul':
      return (a, b) => tf.matMul(a!, b!);
    case 'conv2d':
      return (x, weight) => tf.conv2d(x!, weight!, c.stride, (c.kernel - 1) / 2);
    case 'attention':
      return (q, k, v) => tf.matMul(tf.softmax(tf.mul(tf.matMul(q!, k!, false, true), 1 / Math.sqrt(c.dim))), v!);
    case 'layernorm':
      return (x, weight, bias) => {
        const { mean, variance } = tf.moments(x!, -1, true);
        const normal = tf.mul(tf.sub(x!, mean), tf.rsqrt(tf.add(variance, 1e-5)));
        return tf.add(tf.mul(normal, weight!), bias!);
      };
    case 'softmax':
      return (x) => tf.softmax(x!);
  }
}

export const open: Open = async (load) => {
  pretendBrowser();
  const tf = load('@tensorflow/tfjs-core') as Tf;
  load('@tensorflow/tfjs-backend-webgpu');
  load('@tensorflow/tfjs-layers'); // registers the gradients, which core alone does not
  await tf.setBackend('webgpu');
  await tf.ready();
  const drain = async (last: Value) => {
    const first = tf.slice(last, last.shape.map(() => 0), last.shape.map(() => 1)); // prettier-ignore
    await waitFor(first.data());
    first.dispose();
  };
  return (c, pass) => {
    const { inputs, upstream } = caseData(c);
    const { output } = describeCase(c);
    const conv = c.op === 'conv2d';
    const arrays = inputs.map(({ data, shape }, i) => {
      const order = i === 0 ? LAYOUTS.input : LAYOUTS.weight;
      return conv ? { data: permute(data, shape, order), shape: reorder(shape, order) } : { data, shape };
    });
    const upload = () => arrays.map(({ data, shape }) => tf.tensor(data, shape));
    const resident = upload();
    const dy = conv
      ? tf.tensor(permute(upstream, output, LAYOUTS.input), reorder(output, LAYOUTS.input))
      : tf.tensor(upstream, output);
    const forward = call(tf, c);
    const gradients = tf.grads(forward);
    const runs = {
      forward: async () => {
        const result = tf.tidy(() => forward(...resident));
        await drain(result);
        result.dispose();
      },
      copies: async () => {
        const values = upload();
        const result = tf.tidy(() => forward(...values));
        await waitFor(result.data());
        for (const value of [...values, result]) value.dispose();
      },
      gradient: async () => {
        const results = tf.tidy(() => gradients(resident, dy));
        await drain(results[0]!); // all of them are in the queue before its slice
        for (const result of results) result.dispose();
      },
    };
    const check = async () => {
      const results = pass === 'gradient' ? gradients(resident, dy) : [forward(...resident)];
      return sumOfSquares(...(await Promise.all(results.map((result) => waitFor(result.data())))));
    };
    const release = () => {
      for (const value of [...resident, dy]) value.dispose();
    };
    return Promise.resolve({ run: runs[pass], check, release });
  };
};
