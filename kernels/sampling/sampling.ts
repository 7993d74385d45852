/** Choosing the next token of sequences on the device. (The samplers of diffusion are in kernels/sampler.) */
import { empty, formatShape, randomKey, sameShape, scope, tensor, typed, view, wgsl } from '../../engine/index.ts';
import type { Device, Parameter, Tensor } from '../../engine/index.ts';

wgsl(import.meta.url, '../random/turns.wgsl');
wgsl(import.meta.url, '../random/philox.wgsl');
const sampleSource = wgsl(import.meta.url, './sample_tokens.wgsl');
const countSource = wgsl(import.meta.url, './count_tokens.wgsl');

/** Largest vocabulary: ids are two digits of nine bits in the kernel's search. */
const MOST_TOKENS = 2 ** 18;
const MOST_TOP = 20;
/** Words of a sequence's parameters. */
const WORDS = 11;
/** Rows of the result before the lists. */
const HEAD = 3;

/** How a sequence's next token is chosen; what is left out changes nothing. */
export interface SamplingSettings {
  /** Logits are divided by it; 1 by default. 0 is greedy: the most probable token, the lowest id of equal ones. */
  temperature?: number;
  /** Keeps the k most probable tokens; 0, the default, keeps all. */
  topK?: number;
  /** Keeps the fewest most probable tokens whose share of what top-k has kept reaches p (Holtzman et al., 2020); 1 keeps all. */
  topP?: number;
  /** Keeps tokens at least so probable as this share of the most probable one (Nguyen et al., 2024); 0 keeps all. */
  minP?: number;
  /** Logits of tokens that occurred, prompt or drawn, are divided by it where positive, else multiplied (Keskar et al., 2019). */
  repetitionPenalty?: number;
  /** Taken off the logits of tokens that were drawn (OpenAI's definition). */
  presencePenalty?: number;
  /** Taken off the logits once for each time that the token was drawn (OpenAI's definition). */
  frequencyPenalty?: number;
  /** Of the noise: 0 by default. */
  seed?: number;
  /** Which of several continuations of one prompt: with the same seed they differ. */
  sample?: number;
  /** How many tokens were drawn before. */
  step?: number;
}

function check({ temperature = 1, topK = 0, topP = 1, minP = 0, ...others }: SamplingSettings): void {
  const { repetitionPenalty = 1, presencePenalty = 0, frequencyPenalty = 0, sample = 0, step = 0 } = others;
  const fail = (name: string, value: number, right: string): never => {
    throw new Error(`[sampling] ${name} is ${value}: it must be ${right}`);
  };
  const word = (value: number) => Number.isInteger(value) && value >= 0 && value <= 0xffffffff;
  if (!(temperature >= 0 && temperature <= 1e30)) fail('temperature', temperature, '0 or above, and finite');
  if (!word(topK)) fail('topK', topK, 'a whole number, or 0 for all');
  if (!(topP >= 0 && topP <= 1)) fail('topP', topP, 'from 0 to 1');
  if (!(minP >= 0 && minP <= 1)) fail('minP', minP, 'from 0 to 1');
  if (!(repetitionPenalty > 0 && repetitionPenalty <= 1e30)) fail('repetitionPenalty', repetitionPenalty, 'above 0, and finite'); // prettier-ignore
  if (!(Math.abs(presencePenalty) <= 1e30)) fail('presencePenalty', presencePenalty, 'finite');
  if (!(Math.abs(frequencyPenalty) <= 1e30)) fail('frequencyPenalty', frequencyPenalty, 'finite');
  if (!word(sample)) fail('sample', sample, 'a whole number from 0 to 2^32 - 1');
  if (!word(step)) fail('step', step, 'a whole number from 0 to 2^32 - 1');
}

/** Settings of B sequences as the words of `samplingParameters`, to be written over those of before. */
export function encodeSampling(settings: readonly SamplingSettings[]): Uint32Array<ArrayBuffer> {
  const words = new Uint32Array(settings.length * WORDS);
  const floats = new Float32Array(words.buffer);
  settings.forEach((one, i) => {
    check(one);
    const { low, high } = randomKey(one.seed ?? 0, 'tokens');
    const at = i * WORDS;
    floats[at] = one.temperature ?? 1;
    words[at + 1] = one.topK ?? 0;
    floats[at + 2] = one.topP ?? 1;
    floats[at + 3] = one.minP ?? 0;
    floats[at + 4] = one.repetitionPenalty ?? 1;
    floats[at + 5] = one.presencePenalty ?? 0;
    floats[at + 6] = one.frequencyPenalty ?? 0;
    words.set([low, high, one.sample ?? 0, one.step ?? 0], at + 7);
  });
  return words;
}

/** Settings of B sequences on the device, u32 (B, 11); see `sampleTokens`. */
export const samplingParameters = (device: Device, settings: readonly SamplingSettings[]): Tensor =>
  tensor(device, encodeSampling(settings), [settings.length, WORDS]);

export interface SampleTokensOptions {
  /** Of `samplingParameters`, u32 (B, 11). Each draw moves its sequence's step on by one, so that a replay draws on. */
  readonly parameters: Tensor;
  /** What occurred so far, u32 (B, V), kept by `countTokens`; without it the penalties do nothing. */
  readonly counts?: Tensor | null;
  /** Added to the logits, f32 (B, V) or (1, V); −∞ excludes. */
  readonly bias?: Tensor | null;
  /** Tokens that may come, u32 (B, ⌈V / 32⌉) or (1, ⌈V / 32⌉): bit id % 32 of word ⌊id / 32⌋. */
  readonly mask?: Tensor | null;
  /** How many of the most probable tokens to list with their log-probabilities: 0, the default, to 20. */
  readonly top?: number;
}

/**
 * Draws the next token of B sequences from their logits (B, V), f32 or f16, in one dispatch. In this order: repetition
 * penalty, presence and frequency penalties, bias, mask, temperature, top-k, top-p, min-p. Logits of −∞ (or the lowest
 * finite number) are never drawn.
 *
 * Top-k and top-p keep the smallest prefix that they can of the tokens in the order (probability descending, id ascending).
 * Tokens count as equally probable when their distances d from the best logit (divided by the temperature) agree to 24
 * bits of 1 + d: as far as an f32 probability can tell, and so do all beyond d = 255, whose probability f32 has as 0. Top-p's
 * sums are exact, in units of 2⁻⁴⁴ of the best token's probability; top-p 0 keeps the best.
 *
 * The token drawn is the one with the largest logit + Gumbel noise among those kept, by word `id` of the random numbers of
 * (seed, sample, step): a function of the sequence alone, whatever else is in the batch.
 *
 * The result is i32 (3 + 2 · top, B), for one read-back: ids, log-probabilities as the bits of f32, flags, then ids and
 * log-probabilities of the most probable ones. All log-probabilities are of the unmodified logits. `decodeSamples` takes it
 * apart; on the device `sampledTokens` gives the ids.
 */
export function sampleTokens(
  logits: Tensor,
  { parameters, counts = null, bias = null, mask = null, top = 0 }: SampleTokensOptions,
): Tensor {
  const { device, shape } = logits;
  const [batch = 0, vocabulary = 0] = shape;
  if (shape.length !== 2 || vocabulary === 0 || (logits.dtype !== 'f32' && logits.dtype !== 'f16'))
    throw new Error(`[sampleTokens] logits must be f32 or f16 (B, V), not ${logits.dtype} ${formatShape(shape)}`);
  if (vocabulary > MOST_TOKENS)
    throw new Error(`[sampleTokens] a vocabulary has ${MOST_TOKENS} tokens at most, not ${vocabulary}`);
  if (!Number.isInteger(top) || top < 0 || top > MOST_TOP)
    throw new Error(`[sampleTokens] top is a whole number from 0 to ${MOST_TOP}, not ${top}`);
  if (device.recording && logits.tracked)
    throw new Error('[sampleTokens] has no gradient; call it within noGrad, or on logits that need none');
  /** Throws unless `given` is of this dtype and (rows, width); its rows. */
  const rowsOf = (name: string, given: Tensor | null, dtype: string, width: number, shared: boolean): number => {
    if (!given) return 0;
    const fits = sameShape(given.shape, [batch, width]) || (shared && sameShape(given.shape, [1, width]));
    if (given.dtype !== dtype || !fits)
      throw new Error(
        `[sampleTokens] ${name} must be ${dtype} ${formatShape([batch, width])}${shared ? ` or ${formatShape([1, width])}` : ''}` +
          ` for logits ${formatShape(shape)}, not ${given.dtype} ${formatShape(given.shape)}`,
      );
    return given.shape[0]!;
  };
  rowsOf('parameters', parameters, 'u32', WORDS, false);
  const params = {
    batch,
    vocabulary,
    top,
    one: 1,
    counts_rows: rowsOf('counts', counts, 'u32', vocabulary, false),
    bias_rows: rowsOf('bias', bias, 'f32', vocabulary, true),
    mask_rows: rowsOf('mask', mask, 'u32', Math.ceil(vocabulary / 32), true),
  };
  return scope(device, () => {
    const samples = empty(device, [HEAD + 2 * top, batch], 'i32');
    const changed = empty(device, [batch, Math.ceil(vocabulary / 4), 4]);
    device.run(
      device.kernel(sampleSource, { ...typed(logits), LANES: lanes(device) }),
      [logits, parameters, samples, changed, counts ?? logits, bias ?? logits, mask ?? logits],
      params,
      [batch, 1, 1],
    );
    return samples;
  });
}

/** Of a workgroup. Integer sums and a noise for each token leave nothing to their number but the last bits of Σ exp. */
const lanes = ({ profile, gpu }: Device): string =>
  `${profile.software ? 64 : Math.min(512, gpu.limits.maxComputeInvocationsPerWorkgroup)}u`;

/** The ids of `sampleTokens`' result, i32 (B), without a copy: a model's next input. −1 where none was drawn. */
export const sampledTokens = (samples: Tensor): Tensor => view(samples, 0, [samples.shape[1]!]);

/** What was drawn for one sequence. */
export interface Sampled {
  /** −1 where there is an error. */
  readonly token: number;
  /** Natural logarithm of the token's probability under the unmodified logits. */
  readonly logProbability: number;
  /** Why nothing was drawn: a logit is NaN or +∞, or every token is excluded. */
  readonly error: 'not finite' | 'none allowed' | null;
  /** The most probable tokens under the unmodified logits, most probable first; fewer where no more have a probability. */
  readonly top: readonly { readonly token: number; readonly logProbability: number }[];
}

/** Takes apart what was read of `sampleTokens`' result for `batch` sequences. */
export function decodeSamples(values: Int32Array<ArrayBuffer>, batch: number): Sampled[] {
  const floats = new Float32Array(values.buffer, values.byteOffset, values.length);
  const top = (values.length / batch - HEAD) / 2;
  return Array.from({ length: batch }, (_, b) => {
    const flag = values[2 * batch + b];
    return {
      token: values[b]!,
      logProbability: floats[batch + b]!,
      error: flag === 0 ? null : flag === 1 ? 'not finite' : 'none allowed',
      top: Array.from({ length: top }, (_, n) => ({
        token: values[(HEAD + n) * batch + b]!,
        logProbability: floats[(HEAD + top + n) * batch + b]!,
      })).filter(({ token }) => token >= 0),
    };
  });
}

export interface CountTokensOptions {
  /** The tokens are a prompt's: they count for the repetition penalty alone. */
  prompt?: boolean;
  /** How often each is counted; 1 by default. −1 takes back what was counted. */
  times?: Parameter;
}

/**
 * Notes tokens, i32 (B) or (B, T), in their sequences' counts, u32 (B, V), in place: what `sampleTokens` takes for its
 * penalties. The lower 31 bits say how often a token was drawn, the highest whether it is in the prompt. Tokens outside of
 * 0 … V − 1 are passed over.
 */
export function countTokens(
  counts: Tensor,
  tokens: Tensor,
  { prompt = false, times = 1 }: CountTokensOptions = {},
): void {
  const [batch, vocabulary] = counts.shape as [number, number];
  if (counts.shape.length !== 2 || counts.dtype !== 'u32')
    throw new Error(`[countTokens] counts must be u32 (B, V), not ${counts.dtype} ${formatShape(counts.shape)}`);
  if (tokens.dtype !== 'i32' || tokens.shape.length > 2 || tokens.shape[0] !== batch)
    throw new Error(
      `[countTokens] tokens must be i32 (${batch}) or (${batch}, T) for counts ${formatShape(counts.shape)}, not ${tokens.dtype} ${formatShape(tokens.shape)}`,
    );
  counts.device.run(
    counts.device.kernel(countSource),
    [tokens, counts],
    { size: tokens.size, length: tokens.size / Math.max(batch, 1), vocabulary, prompt: prompt ? 1 : 0, times },
    Math.ceil(tokens.size / 64),
  );
}

/** Forgets what one sequence has counted, for a new one in its place. */
export function clearCounts(counts: Tensor, sequence: number): void {
  const [batch, vocabulary] = counts.shape as [number, number];
  if (!Number.isInteger(sequence) || sequence < 0 || sequence >= batch)
    throw new Error(`[clearCounts] sequence ${sequence} does not exist in counts ${formatShape(counts.shape)}`);
  const bytes = 4 * vocabulary;
  const window = counts.window();
  counts.device.stream.clear({ ...window, offset: window.offset + sequence * bytes, bytes });
}
