/** Reading a model's `config.json`. */
import { z } from 'zod';

/** Numbers of layers, channels or ids: bounded far above any model there is, so that a damaged file is refused at once. */
export const layerCount = z.int().min(1).max(1000);
export const channelCount = z.int().min(1).max(65_536);
export const idCount = z.int().min(1).max(10_000_000);

/** What a model knows of its configuration. */
export interface ConfigRules<S extends z.ZodRawShape> {
  /** The options that the model uses, with the originals' defaults. */
  readonly used: S;
  /** Options that are not implemented: accepted at these values only, at which they change nothing. */
  readonly neutral: Readonly<Record<string, readonly unknown[]>>;
  /** Options that say nothing about the computation here. */
  readonly ignored: readonly string[];
}

/**
 * Checks a parsed `config.json`. Throws on a class, an option or a value that the model does not support: a weight file
 * that loads into another architecture than its own gives wrong results without a word. Keys that begin with `_` are
 * the writer's notes.
 */
export function parseConfig<S extends z.ZodRawShape>(
  json: unknown,
  name: string,
  rules: ConfigRules<S>,
): z.infer<z.ZodObject<S>> {
  const fail = (what: string): never => {
    throw new Error(`[config] ${name}: ${what}`);
  };
  if (typeof json !== 'object' || json === null || Array.isArray(json)) return fail('it must be a JSON object');
  const known = [...Object.keys(rules.used), ...Object.keys(rules.neutral)];
  for (const [key, value] of Object.entries(json)) {
    if (Object.hasOwn(rules.used, key) || rules.ignored.includes(key)) continue;
    const neutral = Object.hasOwn(rules.neutral, key) ? rules.neutral[key] : undefined;
    if (neutral) {
      if (!neutral.includes(value))
        fail(
          `${key} is ${JSON.stringify(value)}; supported is ${neutral.map((v) => JSON.stringify(v)).join(' or ')} only`,
        );
    } else if (!key.startsWith('_')) fail(`option "${key}" is not known; known are ${known.join(', ')}`);
  }
  const result = z.object(rules.used).safeParse(json);
  if (result.success) return result.data;
  const issue = result.error.issues[0]!;
  return fail(`${issue.path.join('.')}: ${issue.message}`);
}

/** Width of an attention head. Throws where the heads do not divide the channels. */
export function headWidth(name: string, channels: number, heads: number): number {
  if (channels % heads !== 0)
    throw new Error(`[config] ${name}: ${channels} channels cannot be divided among ${heads} attention heads`);
  return channels / heads;
}
