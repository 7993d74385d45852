/** Configurations of the training tasks: YAML files, `key=value` overrides, and errors that say which key is meant. */
import { readFile } from 'node:fs/promises';
import { distance } from 'fastest-levenshtein';
import { parse, YAMLParseError } from 'yaml';
import { z } from 'zod';
import { complaint } from './complaint.ts';
import { SAMPLERS } from '../diffusion/schedule.ts';
import type { SamplerName } from '../diffusion/schedule.ts';
import type { WorldName } from '../diffusion/world.ts';
import type { CorpusName } from '../llm/corpus.ts';

export const seed = z.int().min(0).max(Number.MAX_SAFE_INTEGER);
export const count = z.int().min(1);
const fraction = z.number().min(0).lt(1);

const optimizer = z.strictObject({
  lr: z.number().gt(0).describe('learning rate'),
  betas: z.tuple([fraction, fraction]).default([0.9, 0.999]),
  eps: z.number().gt(0).default(1e-8),
  decay: z.number().min(0).default(0.01).describe('decoupled weight decay'),
  clip: z.number().gt(0).default(1).describe('largest norm of the whole gradient'),
  warmup: z.int().min(0).default(0).describe('steps of linear warm-up'),
  schedule: z.enum(['constant', 'linear', 'cosine']).default('constant'),
});

/** The warm-up must end within the run. */
const withinSteps = <T extends z.ZodType<{ steps: number; optimizer: { warmup: number } }>>(schema: T): T =>
  schema.superRefine(({ steps, optimizer: { warmup } }, context) => {
    if (warmup > steps)
      context.addIssue({
        code: 'custom',
        path: ['optimizer', 'warmup'],
        message: `is ${warmup}, and the run has ${steps} steps (steps): set optimizer.warmup=0, or steps to ${warmup} at least`,
      });
  });

const run = {
  name: z
    .string()
    .regex(/^[\w.-]+$/, 'letters, digits, ".", "_" and "-" only')
    .describe('the run folder is runs/<name>'),
  seed: seed.default(0).describe('the same seed on the same adapter gives the same bits'),
  steps: count.describe('optimizer steps'),
  accumulate: count.default(1).describe('batches whose gradients are added to one step'),
  ema: fraction.default(0).describe('decay of the averaged weights; 0: none'),
  checkpoint: z
    .strictObject({
      every: count.default(100).describe('steps between checkpoints'),
      keep: count.default(2).describe('how many stay'),
    })
    .prefault({})
    .describe('a checkpoint every so many steps, the last few kept'),
  memory: z
    .strictObject({
      budget: z.number().min(0).default(0).describe('MiB that the run may take on the device; 0: no limit'),
      checkpointing: z
        .boolean()
        .default(false)
        .describe(
          'computes blocks again in the backward pass instead of keeping what it needs: less memory, a third more time',
        ),
    })
    .prefault({}),
};

export const sampling = {
  sampler: z
    .enum(Object.keys(SAMPLERS) as SamplerName[])
    .default('dpmpp2m-trailing')
    .describe('of all pictures that are drawn, the class pictures among them'),
  steps: count.max(1000).default(8).describe('evaluations of the UNet for a picture'),
  scale: z.number().min(1).default(4).describe('classifier-free guidance'),
};

export const emphasis = z
  .number()
  .min(0)
  .default(0)
  .describe('how much further to go where data.prompt leads beyond data.plain: the subject comes out more strongly');

const validation = z
  .strictObject({
    every: count.default(100).describe('steps between validations'),
  })
  .prefault({});

export const world = z
  .enum(['all', 'faces-and-animals'] satisfies WorldName[])
  .default('faces-and-animals')
  .describe('which emoji: 2,160 names, for a GPU, or 340 of faces and animals');

const TASKS = {
  dreambooth: z.strictObject({
    task: z.literal('dreambooth').describe('what is trained'),
    ...run,
    model: z.string().describe("a model folder in diffusers' layout"),
    data: z.strictObject({
      folder: z.string().describe('3 to 5 pictures of the subject'),
      unseen: z.string().nullable().default(null).describe('further true pictures, for the evidence alone'),
      token: z.string().default('sks').describe('a rare word that comes to mean the subject'),
      class: z.string().describe('what the subject is one of'),
      prompt: z
        .string()
        .default('a {token} {class}')
        .describe('{token}, {class} and {name} (the file name) are filled in'),
      plain: z.string().default('a {class}').describe('the prompt without the subject: see sample.emphasis'),
      crop: z.enum(['center', 'random']).default('center').describe('how pictures that are not square are cut'),
    }),
    prior: z
      .strictObject({
        weight: z.number().min(0).default(1).describe('λ; 0 trains without prior preservation'),
        pictures: z.int().min(0).default(16).describe('class pictures that the model draws before it trains'),
        prompts: z.array(z.string()).min(1).default(['a {class}']).describe('of the class pictures, in turn'),
        names: z
          .array(z.string())
          .default([])
          .describe("what else of the class {name} in prior.prompts stands for, beside the subject's pictures"),
        steps: sampling.steps,
        scale: sampling.scale,
      })
      .prefault({}),
    train: z
      .strictObject({
        unet: z.boolean().default(true).describe('whether the UNet learns'),
        text: z.boolean().default(true).describe('whether the text encoder learns'),
        token: z
          .boolean()
          .default(false)
          .describe(
            "of the text encoder only the token's embedding, at optimizer.text; with train.unet=false: textual inversion",
          ),
        begin: z
          .string()
          .regex(/\S/, 'a word at least')
          .nullable()
          .default(null)
          .describe("words whose mean embedding train.token begins with; null: the class's"),
      })
      .prefault({}),
    batch: z
      .strictObject({
        subject: count.default(4).describe('pictures of the subject in a step'),
        prior: z.int().min(0).default(4).describe('class pictures in the same step'),
      })
      .prefault({}),
    optimizer: optimizer.extend({ text: z.number().min(0).default(1).describe("factor of the text encoder's rate") }),
    sample: z
      .strictObject({
        ...sampling,
        emphasis,
        every: z.int().min(0).default(0).describe('steps between sample pictures while training; 0: none'),
        prompts: z.array(z.string()).default([]).describe('further prompts of the final sheet'),
        seeds: z.array(seed).min(1).default([0]).describe('of the pictures before and after, and of the evidence'),
        grey: z.boolean().default(false).describe('also measure the share of grey: for a grey subject on white'),
      })
      .prefault({}),
  }),
  vae: z.strictObject({
    task: z.literal('vae'),
    ...run,
    model: z.string().describe('folder whose vae/config.json is trained from scratch'),
    world,
    cache: z.string().default('data/emoji').describe('where the renders are kept'),
    size: count.default(64).describe('pixels of a side'),
    validation,
    batch: count.default(16),
    squares: z.number().min(0).default(0.5).describe('weight of the squared error; that of the absolute error is 1'),
    edges: z.number().min(0).default(0.1).describe("weight of the error of neighbouring pixels' differences"),
    kl: z.number().min(0).default(1e-6).describe('weight of the KL term, which is summed over the latents'),
    optimizer,
  }),
  diffusion: z.strictObject({
    task: z.literal('diffusion'),
    ...run,
    model: z.string().describe('folder with the VAE to use and the configurations of UNet and text encoder'),
    world,
    cache: z.string().default('data/emoji').describe('where the renders and their latents are kept'),
    validation,
    batch: count.default(32),
    start: z
      .string()
      .nullable()
      .default(null)
      .describe(
        'a model folder of the same shapes whose UNet and text encoder training begins with; null: random ones',
      ),
    drop: fraction.default(0.1).describe('share of captions left empty, for guidance'),
    article: fraction.default(0.3).describe('share of captions that get an "a" in front'),
    style: fraction.default(0.5).describe('share of captions that name the drawing\'s style, such as ", joy style"'),
    invented: z
      .strictObject({
        styles: z
          .int()
          .min(0)
          .default(0)
          .describe('further drawing styles made of the sets, each named by a rare word'),
        seed: seed.default(0).describe('of how they look: runs that go on from each other keep it'),
        share: z.number().gt(0).lt(1).default(0.5).describe('of the samples, where there are any'),
      })
      .prefault({}),
    snr: z.number().min(0).default(5).describe('γ of min-SNR weighting (Hang et al., 2023); 0: none'),
    weights: z
      .strictObject({
        sets: z.record(z.string(), z.number().min(0)).default({}).describe('factors by emoji set'),
        words: z.record(z.string(), z.number().min(0)).default({}).describe("factors by the caption's words"),
      })
      .prefault({})
      .describe('how often pictures are drawn: the product of all factors that apply'),
    optimizer: optimizer.extend({ text: z.number().min(0).default(0.6).describe("factor of the text encoder's rate") }),
    sample: z
      .strictObject({
        ...sampling,
        every: z.int().min(0).default(500),
        prompts: z.array(z.string()).default(['cat face']),
        seeds: z.array(seed).min(1).default([0]),
      })
      .prefault({}),
  }),
  lm: z.strictObject({
    task: z.literal('lm'),
    ...run,
    model: z.string().describe("a folder with the model's config.json and tokenizer.json"),
    start: z
      .string()
      .nullable()
      .default(null)
      .describe('a model folder of the same shapes whose weights training begins with; null: random ones'),
    tokenizer: z
      .string()
      .nullable()
      .default(null)
      .describe("the folder of another tokenizer.json, or cl100k; null: the model's"),
    data: z
      .strictObject({
        corpora: z
          .array(z.enum(['factbook', 'udhr'] satisfies CorpusName[]))
          .default([])
          .describe('texts that come with the project, by name: factbook, udhr (docs/language-model.md)'),
        files: z.array(z.string()).default([]).describe('text files in UTF-8, or folders of them'),
        document: count
          .default(16384)
          .describe('characters after which the next paragraph of a file begins a new document'),
        heldOut: fraction.default(0.05).describe('share of the documents that are never trained on'),
      })
      .prefault({}),
    length: count.default(256).describe('tokens of a sequence, a multiple of 32; documents are packed into it'),
    batch: count.default(8).describe('sequences at once'),
    tree: z
      .strictObject({
        selection: z.number().min(0).default(1).describe('weight of the loss that teaches to select; 0: none'),
        dense: z.int().min(0).default(0).describe('first steps in which such layers see all'),
      })
      .prefault({})
      .describe('of models that have layers with a tree (docs/long-context.md)'),
    validation: validation
      .unwrap()
      .extend({
        sequences: count.default(64).describe('of the held-out ones while training; all of them at the end'),
      })
      .prefault({}),
    optimizer,
    sample: z
      .strictObject({
        every: z.int().min(0).default(500).describe('steps between sample texts; 0: at the end alone'),
        prompts: z.array(z.string()).default(['']).describe('what they continue'),
        tokens: count.default(64).describe('at most, of a sample'),
        temperature: z.number().min(0).default(0.7).describe('0: the likeliest token each time'),
      })
      .prefault({}),
  }),
};

export type TaskName = keyof typeof TASKS;
export type Config<T extends TaskName = TaskName> = z.infer<(typeof TASKS)[T]>;

/** An error in what the user wrote: shown without a stack. */
export class ConfigError extends Error {
  override name = 'ConfigError';
}

/**
 * Reads a configuration: the YAML `file`, then `overrides` such as `optimizer.lr=3e-4` (values are YAML). Throws a
 * ConfigError that names file, key, and the nearest key or what would be right.
 */
export const loadConfig = async (file: string, overrides: readonly string[] = []): Promise<Config> =>
  parseConfig(await readConfig(file), file, overrides);

export async function readConfig(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    throw new ConfigError(
      `${file}: cannot be read (${(error as NodeJS.ErrnoException).code}); give a YAML file, such as assets/configs/dreambooth.yaml`,
    );
  }
}

export function parseConfig(text: string, file: string, overrides: readonly string[] = []): Config {
  return parseWith(
    ({ task }, where) => {
      if (typeof task !== 'string' || !Object.hasOwn(TASKS, task))
        throw new ConfigError(
          `${where(['task'])} must be one of ${Object.keys(TASKS).join(', ')}, not ${JSON.stringify(task) ?? 'missing'}`,
        );
      return withinSteps(TASKS[task as TaskName] as z.ZodType<Config>);
    },
    text,
    file,
    overrides,
  );
}

/** Parses a configuration by the schema that `choose` finds for it; `where` says in errors where a key was given. */
export function parseWith<T>(
  choose: (values: Record<string, unknown>, where: (path: readonly PropertyKey[]) => string) => z.ZodType<T>,
  text: string,
  file: string,
  overrides: readonly string[] = [],
): T {
  let raw: unknown;
  try {
    raw = parse(text);
  } catch (error) {
    throw new ConfigError(
      `${file} is not a YAML file: ${error instanceof YAMLParseError ? error.message.slice(0, 300) : String(error)}`,
    );
  }
  if (typeof raw !== 'object' || raw === null || Array.isArray(raw))
    throw new ConfigError(`${file}: must hold keys and values, such as "task: dreambooth"`);
  const values = raw as Record<string, unknown>;
  const origin = new Map<string, string>();
  for (const override of overrides) applyOverride(values, override, origin);
  const where = (path: readonly PropertyKey[]) => {
    const key = path.join('.');
    // What gave the key itself, all of which it is a part, or a part of it.
    const related = [...origin.keys()].filter(
      (given) => `${key}.`.startsWith(`${given}.`) || given.startsWith(`${key}.`),
    );
    return `${origin.get(key) ?? origin.get(related.at(-1) ?? '') ?? file}: ${key}`;
  };
  const schema = choose(values, where);
  const result = schema.safeParse(values);
  if (result.success) return result.data;
  const issue = result.error.issues[0]!;
  if (issue.code === 'unrecognized_keys') {
    const unknown = issue.keys[0]!;
    const known = keysAt(schema, issue.path);
    const nearest = known.toSorted((a, b) => distance(a, unknown) - distance(b, unknown))[0];
    throw new ConfigError(
      `${where([...issue.path, unknown])} is not a known key` +
        (nearest !== undefined && distance(nearest, unknown) <= Math.max(2, unknown.length / 2)
          ? `; did you mean ${[...issue.path, nearest].join('.')}?`
          : `; known are ${known.join(', ')}`),
    );
  }
  throw new ConfigError(`${where(issue.path)} ${complaint(issue, values)}`);
}

function applyOverride(values: Record<string, unknown>, override: string, origin: Map<string, string>): void {
  const match = /^([\w.-]+)=(.*)$/s.exec(override);
  if (!match) throw new ConfigError(`"${override}" is not of the form key=value, such as optimizer.lr=3e-4`);
  const path = match[1]!.split('.');
  let value: unknown;
  try {
    value = parse(match[2]!);
  } catch {
    throw new ConfigError(`"${override}": the value is not YAML`);
  }
  let place = values;
  path.forEach((key, i) => {
    if (key === '__proto__') throw new ConfigError(`"${override}": no such key`);
    if (i === path.length - 1) place[key] = value;
    else {
      const next = place[key] ?? {};
      if (typeof next !== 'object' || Array.isArray(next))
        throw new ConfigError(`"${override}": ${path.slice(0, i + 1).join('.')} holds no keys`);
      place = place[key] = next as Record<string, unknown>;
    }
  });
  origin.set(path.join('.'), `"${override}"`);
}

/** The keys that an object inside a schema knows. */
function keysAt(schema: z.ZodType, path: readonly PropertyKey[]): string[] {
  let current: unknown = schema;
  for (const key of path) {
    const { shape, def } = unwrap(current);
    current = shape ? shape[key as string] : def?.valueType; // of a record
  }
  return Object.keys(unwrap(current).shape ?? {});
}

interface Schema {
  readonly shape?: Record<string, unknown>;
  readonly def?: { readonly innerType?: unknown; readonly valueType?: unknown };
}

function unwrap(schema: unknown): Schema {
  let current = schema as Schema | undefined;
  while (current && !current.shape && current.def?.innerType) current = current.def.innerType as typeof current;
  return current ?? {};
}

/** The values of an enumeration, or undefined. */
function choices(schema: unknown): readonly string[] | undefined {
  let current = schema as { options?: readonly string[]; def?: { innerType?: unknown } } | undefined;
  while (current && !current.options && current.def?.innerType) current = current.def.innerType as typeof current;
  return current?.options?.every((option) => typeof option === 'string') ? current.options : undefined;
}

/** Every key of a task with its default and meaning, for `--help`. */
export const describeKeys = (task: TaskName): string => describeSchema(TASKS[task]);

export function describeSchema(configuration: z.ZodType): string {
  const lines: [string, string][] = [];
  const visit = (schema: unknown, path: string) => {
    for (const [key, value] of Object.entries(unwrap(schema).shape ?? {})) {
      const inner = value as z.ZodType & { def: { defaultValue?: unknown } };
      if (unwrap(inner).shape) visit(inner, `${path}${key}.`);
      else {
        const fallback = 'defaultValue' in inner.def ? ` = ${JSON.stringify(inner.def.defaultValue)}` : '';
        const options = choices(inner);
        const meaning = [inner.description, options && `one of ${options.join(', ')}`].filter(Boolean).join('; ');
        lines.push([`${path}${key}${fallback}`, meaning]);
      }
    }
  };
  visit(configuration, '');
  return lines.map(([key, meaning]) => (meaning ? `  ${key.padEnd(40)} ${meaning}` : `  ${key}`)).join('\n');
}
