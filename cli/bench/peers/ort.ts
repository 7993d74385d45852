/**
 * onnxruntime's WebGPU provider. Inputs and result lie on the device; because it has no call that waits for the device, the
 * result's first element is copied out: one slice and four bytes are in its figure.
 */
import type { Shape } from '../../../engine/index.ts';
import { describeCase } from '../cases.ts';
import type { Case } from '../cases.ts';
import { caseData, permute, sumOfSquares } from './engine.ts';
import type { Open } from './engine.ts';
import { onnxModel } from './onnx.ts';
import type { Node } from './onnx.ts';

/** What is used of the package. */
interface Runtime {
  Tensor: new (type: 'float32', data: Float32Array, shape: Shape) => Value;
  InferenceSession: { create(model: Uint8Array, options: object): Promise<Session> };
}
interface Value {
  readonly data: Float32Array;
  dispose(): void;
}
interface Session {
  run(feeds: Readonly<Record<string, Value>>): Promise<Record<string, Value>>;
  release(): Promise<void>;
}

/** The case as a graph of one node; attention's heads lie side by side there: (B, T, H · D). */
function graph(c: Case): { node: Node; inputs: { data: Float32Array; shape: Shape }[]; output: Shape } {
  const { inputs } = caseData(c);
  const { output } = describeCase(c);
  const node = (type: string, more: Partial<Node> = {}): Node => ({
    type,
    inputs: inputs.map((_, i) => `x${i}`),
    outputs: ['y'],
    ...more,
  });
  switch (c.op) {
    case 'matmul':
      return { node: node('MatMul'), inputs, output };
    case 'conv2d': {
      const pad = (c.kernel - 1) / 2;
      const pads = [pad, pad, pad, pad];
      return { node: node('Conv', { attributes: { pads, strides: [c.stride, c.stride] } }), inputs, output };
    }
    case 'attention': {
      const joined = inputs.map(({ data, shape }) => {
        const [batch, heads, positions, dim] = shape as [number, number, number, number];
        return { data: permute(data, shape, [0, 2, 1, 3]), shape: [batch, positions, heads * dim] };
      });
      return {
        node: node('MultiHeadAttention', { attributes: { num_heads: c.heads }, domain: 'com.microsoft' }),
        inputs: joined,
        output: joined[0]!.shape,
      };
    }
    case 'layernorm':
      return { node: node('LayerNormalization'), inputs, output };
    case 'softmax':
      return { node: node('Softmax'), inputs, output };
  }
}

export const open: Open = (load) => {
  const runtime = load('onnxruntime-node') as Runtime;
  const session = (model: Uint8Array, preferredOutputLocation: unknown = 'cpu') =>
    runtime.InferenceSession.create(model, { executionProviders: ['webgpu'], logSeverityLevel: 3, preferredOutputLocation }); // prettier-ignore
  /** Copies a value to the device, for good. */
  const toDevice = async (value: Value, shape: Shape): Promise<Value> => {
    const identity = onnxModel([{ type: 'Identity', inputs: ['x'], outputs: ['y'] }], { x: shape }, { y: shape });
    const copy = await session(identity, 'gpu-buffer');
    const { y } = await copy.run({ x: value });
    return y!;
  };
  return Promise.resolve(async (c, pass) => {
    if (pass === 'gradient') return null;
    const { node, inputs, output } = graph(c);
    const shapes = Object.fromEntries(inputs.map(({ shape }, i) => [`x${i}`, shape]));
    const whole = await session(onnxModel([node], shapes, { y: output }));
    const feeds: Record<string, Value> = {};
    for (const [i, { data, shape }] of inputs.entries()) feeds[`x${i}`] = new runtime.Tensor('float32', data, shape);
    const check = async () => sumOfSquares((await whole.run(feeds))['y']!.data);
    if (pass === 'copies') {
      const run = async () => void (await whole.run(feeds));
      return { run, check, release: () => void whole.release() };
    }
    const first = output.map(() => 1);
    const slice: Node = { type: 'Slice', inputs: ['y', 'from', 'to'], outputs: ['first'] };
    const constants = { from: output.map(() => 0), to: first };
    const model = onnxModel([node, slice], shapes, { y: output, first }, constants);
    const resident = await session(model, { y: 'gpu-buffer', first: 'cpu' });
    const onDevice: Record<string, Value> = {};
    for (const [i, { shape }] of inputs.entries()) onDevice[`x${i}`] = await toDevice(feeds[`x${i}`]!, shape);
    return {
      run: async () => (await resident.run(onDevice))['y']!.dispose(),
      check,
      release: () => {
        for (const value of Object.values(onDevice)) value.dispose();
        void resident.release();
        void whole.release();
      },
    };
  });
};
