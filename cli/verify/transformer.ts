/** Checks of decoders: logits, loss, gradients, greedy text with a cache, and the frequencies in force. */
import path from 'node:path';
import { z } from 'zod';
import { backward, noGrad, release, reshape, scope, tensor } from '../../engine/index.ts';
import { argmax, crossEntropy } from '../../kernels/index.ts';
import { KeyValueCache } from '../../llm/cache.ts';
import { isFamily } from '../../llm/config.ts';
import { readTransformer } from '../../llm/folder.ts';
import type { Transformer } from '../../llm/model.ts';
import { ropeValues } from '../../llm/rope.ts';
import { folderFiles } from '../../nn/folder.ts';
import { readJson } from '../../nn/model_files.ts';
import { compareGradients, compareTensor, skipOthers } from './models.ts';
import type { Subject } from './recordings.ts';
import { EXACT } from './report.ts';
import type { Report } from './report.ts';

const fields = z.object({ weights: z.string() });
const IGNORED = -100;

export async function verifyTransformer(subject: Subject, report: Report): Promise<void> {
  const { device, root, folder, recording, inputs, outputs } = subject;
  // Cases that differ in their configuration alone share weights.
  const files = { ...folderFiles(path.join(root, fields.parse(recording).weights)), text: folderFiles(folder).text };
  const { model_type: family } = (await readJson(files, 'config.json')) as { model_type?: unknown };
  if (!isFamily(family)) {
    report.skip('all', `the family ${String(family)} is not known`);
    return;
  }
  const model = await readTransformer(device, files);
  const [batch, length] = inputs.info('input_ids').shape as [number, number];
  const ids = tensor(device, await inputs.integers('input_ids'), [batch, length]);
  // The target of a token is the label of the next one.
  const labels = await inputs.integers('labels');
  const shifted = labels.map((_, i) => ((i + 1) % length === 0 ? IGNORED : labels[i + 1]!));
  const targets = tensor(device, shifted, [batch * length]);
  const { logits, loss } = scope(device, () => {
    const logits = model.logits(model.forward(ids));
    const loss = crossEntropy(reshape(logits, [batch * length, logits.shape[2]!]), targets, { ignore: IGNORED });
    backward(loss);
    return { logits, loss };
  });
  for (const [name, result] of Object.entries({ logits, loss })) {
    const kind = name === 'loss' ? 'loss' : 'output';
    await compareTensor(report, name, result, await outputs.floats(name), kind, { spread: report.spread(name) });
  }
  await compareGradients(report, model, outputs);
  release(ids, targets, logits, loss);

  const rope = model.config.layers[0]!.rope!;
  // Those of the dynamic kind were recorded when the run was over and they had been set back; its logits check the others.
  const { frequencies, scale } = ropeValues(rope, rope.scaling.rope_type === 'dynamic' ? 0 : length);
  const single = { rtol: 1e-6 }; // the originals compute them in f32
  if (outputs.tensors.has('rope_inv_freq'))
    report.compare('rope_inv_freq', frequencies, await outputs.floats('rope_inv_freq'), single);
  if (outputs.tensors.has('rope_attention_scaling'))
    report.compare('rope_attention_scaling', [scale], await outputs.floats('rope_attention_scaling'), single);

  if (outputs.tensors.has('greedy_ids')) {
    const expected = await outputs.integers('greedy_ids');
    const total = outputs.info('greedy_ids').shape[1]!;
    const texts = Array.from({ length: batch }, (_, b) => expected.subarray(b * total, (b + 1) * total));
    const prompt = Math.floor(length / 2);
    const actual = await greedy(model, texts.map((text) => text.subarray(0, prompt)), total); // prettier-ignore
    report.compare(`greedy_ids, ${total - prompt} tokens behind ${prompt}`, actual.flat(), expected, EXACT);
  }
  skipOthers(report, outputs, /^(logits|loss|greedy_ids|rope_.*|grad\..*|gradnorm\..*)$/);
  model.release();
}

/** Goes on with texts until they have `total` tokens, the likeliest one each time; the prompts go in by chunks. */
async function greedy(model: Transformer, prompts: readonly Int32Array[], total: number): Promise<number[][]> {
  const texts = prompts.map((prompt) => Array.from(prompt));
  const cache = new KeyValueCache(model.device, model.config, { batch: texts.length, capacity: total });
  const CHUNK = 5;
  try {
    while (texts[0]!.length < total) {
      const done = cache.lengths[0]!;
      const chunk = texts.map((text) => text.slice(done, done + CHUNK));
      const best = noGrad(
        model.device,
        () =>
        scope(model.device, () => argmax(model.logits(model.forward(chunk, { step: cache.step(chunk[0]!.length) })))), // prettier-ignore
      );
      const values = await best.read();
      release(best);
      if (cache.lengths[0] === texts[0]!.length)
        texts.forEach((text, b) => text.push(values[(b + 1) * chunk[0]!.length - 1]!));
    }
    return texts;
  } finally {
    cache.release();
  }
}
