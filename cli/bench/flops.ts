/** Arithmetic operations of a model's forward pass, from the shapes of its weights: 2 a multiply-add, products alone. */
import type { Module } from '../../nn/module.ts';
import type { ClipTextModel } from '../../diffusion/clip.ts';
import type { UNet } from '../../diffusion/unet.ts';

/** Of one sample (4, size, size) with a text of `tokens`. */
export function unetFlops(unet: UNet, size: number, tokens: number): number {
  const levels = unet.config.block_out_channels.length;
  /** Positions of a picture that was halved so many times. */
  const pixels = (level: number) => Math.ceil(size / 2 ** level) ** 2;
  let total = 0;
  for (const { path, weight } of matrices(unet)) {
    const [block, number] = path.split('.') as [string, string];
    let level = 0; // conv_in and conv_out
    if (block === 'mid_block') level = levels - 1;
    else if (block === 'down_blocks') level = Number(number) + (path.includes('downsamplers') ? 1 : 0);
    else if (block === 'up_blocks') level = levels - 1 - Number(number) - (path.includes('upsamplers') ? 1 : 0);
    let positions = pixels(level);
    if (/attn2\.to_[kv]/.test(path)) positions = tokens;
    else if (/time_emb/.test(path)) positions = 1;
    total += 2 * weight.size * positions;
    const width = weight.shape[0]!;
    if (/attn1\.to_q/.test(path)) total += 4 * pixels(level) ** 2 * width;
    if (/attn2\.to_q/.test(path)) total += 4 * pixels(level) * tokens * width;
  }
  return total;
}

/** Of one text of `tokens`. What the causal mask hides is counted, as is usual. */
export function textFlops(textEncoder: ClipTextModel, tokens: number): number {
  let total = 0;
  for (const { path, weight } of matrices(textEncoder)) {
    if (path.includes('embedding')) continue; // looked up
    total += 2 * weight.size * tokens;
    if (path.endsWith('q_proj.weight')) total += 4 * tokens ** 2 * weight.shape[0]!;
  }
  return total;
}

const matrices = (module: Module) =>
  [...module.namedParameters()]
    .map(([path, weight]) => ({ path, weight }))
    .filter(({ weight }) => weight.shape.length >= 2);
