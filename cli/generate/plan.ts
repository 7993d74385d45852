/** What writing a text takes of memory, said before any is asked for: `--plan`. */
import { rehearsal } from '../../engine/index.ts';
import type { Device } from '../../engine/index.ts';
import { openNodeDevice, openNodeDryDevice } from '../../engine/node.ts';
import { loadTransformerConfig } from '../../llm/folder.ts';
import { capacityOf } from '../../llm/generate.ts';
import { describePlan, planTransformer } from '../../llm/plan.ts';
import { resolvePath } from '../run.ts';
import type { TextOptions } from './options.ts';

/** Prints the plan for one sequence of so many tokens, the prompt's included. */
export async function printPlan(
  name: string,
  tokens: number,
  { weights, cache: dtype, chunk }: Pick<TextOptions, 'weights' | 'cache' | 'chunk'>,
): Promise<void> {
  const config = await loadTransformerConfig(resolvePath(name));
  const { context } = config;
  if (tokens > context) throw new Error(`[plan] ${tokens} tokens are over the model's context of ${context}`);
  const capacity = capacityOf(tokens, context);
  const device = await openNodeDevice();
  const size = { batch: 1, capacity, dtype };
  const plan = (dry: Device) => describePlan(planTransformer(dry, config, { weights, cache: size, chunk: Math.min(chunk, capacity - 1) })); // prettier-ignore
  console.log(`${name}, a sequence of ${tokens} tokens with room for ${capacity}, of a context of ${context}:`);
  try {
    console.log(plan(rehearsal(device)));
  } catch (error) {
    const { message } = error as Error;
    if (!message.includes('bound at once')) throw error;
    console.log(plan(await openNodeDryDevice({ profile: device.profile })));
    console.log(`This adapter cannot do it: ${message}`);
  }
}
