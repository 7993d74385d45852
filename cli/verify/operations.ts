/** Checks of single operations: results and gradients. */
import { z } from 'zod';
import { backward, clearGradient, release, scope, tensor, Tensor } from '../../engine/index.ts';
import {
  attentionWithLogSumExp,
  conv2d,
  crossEntropy,
  embedding,
  geglu,
  gelu,
  geluTanh,
  groupNorm,
  layerNorm,
  linear,
  mse,
  quickGelu,
  relu2,
  rmsNorm,
  silu,
  rope,
  ropeFrequencies,
  ropeTable,
  softmax,
  swiglu,
  upsampleNearest,
} from '../../kernels/index.ts';
import { timestepEmbedding } from '../../diffusion/unet.ts';
import type { Safetensors } from '../../nn/safetensors.ts';
import { upload } from './models.ts';
import type { Subject } from './recordings.ts';
import type { Report } from './report.ts';

const attentionCase = z.strictObject({
  B: z.int(),
  H: z.int(),
  KV: z.int(),
  Tq: z.int(),
  Tk: z.int(),
  D: z.int(),
  kind: z.enum(['full', 'causal', 'mask']),
  window: z.int().optional(),
  qs: z.number().optional(), // how large the recorded q were made
});

/** softmax(q kᵀ / √D + mask) v in its forms. */
export async function verifyAttention({ device, recording, inputs, outputs }: Subject, report: Report): Promise<void> {
  for (const [name, json] of Object.entries(z.record(z.string(), z.unknown()).parse(recording.sub))) {
    const form = attentionCase.safeParse(json);
    if (!form.success) {
      report.skip(name, `the form is not known: ${form.error.issues[0]!.message}`);
      continue;
    }
    const { kind, window } = form.data;
    const [q, k, v, dout] = (await Promise.all(
      ['q', 'k', 'v', 'dout'].map((key) => upload(device, inputs, `${name}.${key}`)),
    )) as [Tensor, Tensor, Tensor, Tensor];
    for (const operand of [q, k, v]) operand.requiresGrad = true;
    const mask = kind === 'mask' ? await upload(device, inputs, `${name}.mask`) : null;
    const { out, logSumExp } = scope(device, () => {
      const result = attentionWithLogSumExp(q, k, v, {
        causal: kind === 'causal',
        ...(window === undefined ? {} : { window }),
        ...(mask ? { mask } : {}),
      });
      backward(result.out, dout);
      return result;
    });
    const results = { out, lse: logSumExp, dq: q.grad, dk: k.grad, dv: v.grad };
    for (const [key, result] of Object.entries(results)) {
      const limit = report.limit(key.startsWith('d') ? 'grad' : 'output', name);
      if (outputs.tensors.has(`${name}.${key}`))
        report.compare(`${name}.${key}`, (await result?.read()) ?? [], await outputs.floats(`${name}.${key}`), limit);
    }
    for (const operand of [q, k, v]) clearGradient(operand);
    release(q, k, v, dout, out, logSumExp, ...(mask ? [mask] : []));
  }
}

type Operands = Readonly<Record<string, Tensor>>;

/** What is known of a layer besides its operands. */
interface Layer {
  /** Its description in lower case. */
  readonly text: string;
  /** Of the recorded result. */
  readonly shape: readonly number[];
  /** The operands' values on the host. */
  readonly values: Readonly<Record<string, ArrayLike<number>>>;
}

const LINEAR = /^linear|x w\^t/;

/**
 * Layers by what the manifest says of them in words, with the numbers that stand there. The first rule that fits counts;
 * a layer that none fits is not run.
 */
const LAYERS: readonly (readonly [says: RegExp, run: (operands: Operands, layer: Layer) => Tensor])[] = [
  [/group_?norm/, ({ x, w, b }, { text }) => groupNorm(x!, w!, b!, number(text, 'groups'), { eps: number(text, 'eps'), silu: /silu/.test(text) })],
  [/rms_?norm/, ({ x, w }, { text }) => rmsNorm(x!, w!, { eps: number(text, 'eps'), offset: /gemma|1\+w/.test(text) ? 1 : 0 })],
  [/layer_?norm/, ({ x, w, b }, { text }) => layerNorm(x!, w!, b!, number(text, 'eps'))],
  [/\bconv|zero pad/, ({ x, w, b }, layer) => conv2d(x!, w!, b ?? null, convolution(x!, w!, layer))],
  [/swiglu/, ({ x, wg, wu }) => swiglu(linear(x!, wg!, null), linear(x!, wu!, null))],
  [/rotary/, ({ x }, layer) => rotary(x!, layer)],
  [/geglu/, ({ x, w, b }) => geglu(linear(x!, w!, b ?? null))],
  [/quick_?gelu|1\.702/, ({ x }) => quickGelu(x!)],
  [/gelu.*tanh|tanh.*gelu/, ({ x }) => geluTanh(x!)],
  [/gelu/, ({ x }) => gelu(x!)],
  [/relu2|relu\(x\)\^2/, ({ x }) => relu2(x!)],
  [/^silu:|x\*sigmoid\(x\)/, ({ x }) => silu(x!)],
  [/softmax/, ({ x }) => softmax(x!)],
  [/cross.?entropy/, ({ x, target }) => crossEntropy(x!, target!)],
  [/mean squared error|^mse/, ({ x, t }) => mse(x!, t!)],
  [/timestep/, ({ t }, layer) => sinusoids(t!, layer)],
  [/embedding lookup|^embedding:/, ({ w, ids }) => embedding(w!, ids!)],
  [/nearest/, ({ x }, { shape }) => upsampleNearest(x!, [shape[2]!, shape[3]!])],
  [LINEAR, ({ x, w, b }) => linear(x!, w!, b ?? null)],
]; // prettier-ignore

/** A layer of which too little is said, or something that is not implemented. */
class Unknown extends Error {}

/** The number after a word: `eps=1e-5`, `stride 2`. */
function number(text: string, word: string, otherwise?: number): number {
  const found = new RegExp(`${word}[ =]*(-?\\d[\\d.]*(?:e-?\\d+)?)`).exec(text)?.[1];
  if (found === undefined && otherwise === undefined) throw new Unknown(`its description does not say ${word}`);
  return found === undefined ? otherwise! : Number(found);
}

/** Stride and padding: as described, or a padding on all sides that gives the recorded size with stride 1. */
function convolution(x: Tensor, w: Tensor, { text, shape }: Layer) {
  if (/dilat|groups|transposed/.test(text)) throw new Unknown('a convolution of this kind is not known');
  const stride = number(text, 'stride', 1);
  const side = (name: string) => number(text, name, 0);
  if (/zero pad/.test(text))
    return { stride, padding: [side('top'), side('bottom'), side('left'), side('right')] as const };
  const fitting = (shape[2]! - 1 + w.shape[2]! - x.shape[2]!) / 2;
  return { stride, padding: number(text, 'padding', stride === 1 ? fitting : undefined) };
}

function sinusoids(t: Tensor, { text, shape, values }: Layer): Tensor {
  const embedded = timestepEmbedding(Array.from(values.t!), shape[1]!, {
    flip_sin_to_cos: !/flip_sin_to_cos=false/.test(text),
    freq_shift: number(text, 'downscale_freq_shift', 0),
  });
  return tensor(t.device, embedded, shape);
}

/** x (B, H, T, D) at positions 0 … T − 1. */
function rotary(x: Tensor, { text }: Layer): Tensor {
  if (!/rotate_half/.test(text)) throw new Unknown('its description does not say which columns make pairs');
  const positions = Int32Array.from({ length: x.shape[2]! }, (_, i) => i);
  const table = ropeTable(x.device, ropeFrequencies(x.shape[3]!, number(text, 'base')));
  return rope(x, tensor(x.device, positions), table);
}

/** Whether the shapes leave no other reading: x (…, in), w (out, in), y (…, out). */
function isLinear(name: string, inputs: Safetensors, outputs: Safetensors): boolean {
  const [x, w, y] = [
    inputs.tensors.get(`${name}.x`),
    inputs.tensors.get(`${name}.w`),
    outputs.tensors.get(`${name}.y`),
  ];
  return x?.shape.at(-1) === w?.shape[1] && y?.shape.at(-1) === w?.shape[0] && w?.shape.length === 2;
}

export async function verifyLayers({ device, recording, inputs, outputs }: Subject, report: Report): Promise<void> {
  for (const [name, words] of Object.entries(z.record(z.string(), z.string()).parse(recording.sub))) {
    const text = words.toLowerCase();
    const described = `${name.toLowerCase()}: ${text}`;
    const rule = LAYERS.find(([says]) => says.test(described) || (says === LINEAR && isLinear(name, inputs, outputs)));
    if (!rule) {
      report.skip(name, 'the layer is not known');
      continue;
    }
    const keys = (file: typeof inputs) => [...file.tensors.keys()].filter((key) => key.startsWith(`${name}.`));
    const tensors: Record<string, Tensor> = {};
    const values: Record<string, ArrayLike<number>> = {};
    for (const key of keys(inputs)) {
      const argument = key.slice(name.length + 1);
      tensors[argument] = await upload(device, inputs, key);
      tensors[argument].requiresGrad = outputs.tensors.has(`${name}.d_${argument}`);
      values[argument] = await inputs.read(key);
    }
    try {
      const { dy, ...operands } = tensors;
      const y = scope(device, () => {
        const y = rule[1](operands, { text, shape: outputs.info(`${name}.y`).shape, values });
        if (Object.values(operands).some((operand) => operand.requiresGrad)) backward(y, dy);
        return y;
      });
      report.compare(`${name}.y`, await y.read(), await outputs.floats(`${name}.y`), report.limit('output', name));
      release(y);
      for (const key of keys(outputs)) {
        const argument = key.slice(`${name}.d_`.length);
        if (key === `${name}.y`) continue;
        const gradient = await operands[argument]?.grad?.read();
        report.compare(key, gradient ?? [], await outputs.floats(key), report.limit('grad', name));
      }
    } catch (error) {
      if (error instanceof Unknown) report.skip(name, error.message);
      else report.fail(name, (error as Error).message);
    }
    for (const operand of Object.values(tensors)) {
      clearGradient(operand);
      release(operand);
    }
  }
}
