import { noGrad, release, scope } from '../../engine/index.ts';
import type { Device } from '../../engine/index.ts';
import { parseTransformerConfig } from '../../llm/config.ts';
import { Transformer } from '../../llm/model.ts';

/** A Llama of 2 layers whose rows are multiples of 32 and whose groups have two heads. */
export const SMALL = {
  model_type: 'llama',
  vocab_size: 96,
  hidden_size: 64,
  intermediate_size: 96,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 64,
  rms_norm_eps: 1e-5,
  eos_token_id: 2,
};

/** A model of random weights, norms and biases among them. */
export function randomModel(device: Device, json: object, seed = 1): Transformer {
  const model = new Transformer(device, parseTransformerConfig(json));
  model.initialize(seed);
  return model;
}

/** Logits of one text, (T, V). */
export async function logitsOf(model: Transformer, ids: readonly number[]): Promise<Float32Array> {
  const logits = noGrad(model.device, () => scope(model.device, () => model.logits(model.forward([ids]))));
  const values = (await logits.read()) as Float32Array;
  release(logits);
  return values;
}

export async function weightsOf(model: Transformer): Promise<Map<string, Float32Array>> {
  const values = new Map<string, Float32Array>();
  for (const [name, tensor] of model.namedParameters()) values.set(name, (await tensor.read()) as Float32Array);
  return values;
}

/** ‖a − b‖ / ‖b‖ */
export function distance(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let [errors, squares] = [0, 0];
  for (let i = 0; i < b.length; i++) {
    errors += (a[i]! - b[i]!) ** 2;
    squares += b[i]! ** 2;
  }
  return Math.sqrt(errors / squares);
}
