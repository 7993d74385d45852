/** The configuration of `npm run evaluate`. */
import { z } from 'zod';
import { SUBJECTS } from '../../diffusion/world.ts';
import { count, emphasis, parseWith, sampling, seed, world } from '../config.ts';

const prompts = z.array(z.string()).default([]);

const variant = z.strictObject({
  overrides: z
    .record(z.string(), z.unknown())
    .default({})
    .describe('keys of the DreamBooth configuration with other values, such as prior.weight: 0'),
  subjects: z.array(z.enum(SUBJECTS)).min(1).optional().describe('these alone'),
  seeds: z.array(seed).min(1).optional().describe('these alone'),
});

export const EVALUATION = z.strictObject({
  model: z.string().default('assets/base').describe("the model to judge, in diffusers' layout"),
  world,
  cache: z.string().default('data/emoji').describe('where the renders are kept'),
  base: z
    .strictObject({
      ...sampling,
      seed: seed.default(0).describe("the n-th picture's seed is this plus n"),
      pairs: count.default(200).describe('held-out pairs that are drawn; all are 200'),
      sheets: z
        .record(
          z.string(),
          z.strictObject({
            shown: prompts.describe('captions that training showed'),
            heldOut: prompts.describe('captions of pairs held out'),
            composed: prompts.describe('words that no caption puts together so'),
          }),
        )
        .default({})
        .describe('prompts of base-sheet.png, by world'),
    })
    .prefault({}),
  dreambooth: z
    .strictObject({
      config: z.string().default('assets/configs/dreambooth.yaml').describe('what all variants begin with'),
      subjects: z
        .array(z.enum(SUBJECTS))
        .min(1)
        .default([...SUBJECTS])
        .describe('sets whose cats are learned'),
      seeds: z.array(seed).min(1).default([0, 1, 2, 3]).describe('of training and class pictures'),
      shown: z.array(z.string()).min(1).describe('expressions that are trained on'),
      ...sampling,
      emphasis,
      drawings: count.default(4).describe('pictures of each prompt'),
      variants: z
        .record(z.string().regex(/^[\w.-]+$/, 'letters, digits, ".", "_" and "-" only'), variant)
        .refine((variants) => 'full' in variants, 'there must be one called full, which the others are compared with')
        .describe('overrides, subjects and seeds of each; "full" is what the others are compared with'),
      rows: z.array(z.string()).default([]).describe("variants on the subjects' sheets"),
    })
    .describe('DreamBooth on cats that the model never saw'),
});

export type Evaluation = z.infer<typeof EVALUATION>;
export type Variant = z.infer<typeof variant>;

/** Throws a ConfigError as the training configurations do. */
export const parseEvaluation = (text: string, file: string, overrides: readonly string[]): Evaluation =>
  parseWith(() => EVALUATION, text, file, overrides);
