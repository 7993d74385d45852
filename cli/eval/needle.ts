import { openNodeDevice } from '../../engine/node.ts';
import { findNeedles, inductionModel, needleText } from '../../llm/constructed.ts';
import type { Found } from '../../llm/constructed.ts';
import { duration, Progress } from '../../nn/progress.ts';

const VOCABULARY = 128;
const WINDOW = 128;
const NEEDLES = 20;

/** Prints which of 20 needles in `length` tokens, the question's included, are found through a tree and through windows alone. */
export async function evalNeedle({ length, seed }: { length: number; seed: number }): Promise<void> {
  const device = await openNodeDevice();
  console.log(`Adapter: ${device.profile.description}`);
  const given = needleText(length - 1, { vocabulary: VOCABULARY, needles: NEEDLES, seed });
  const look = async (second: 'tree' | 'window'): Promise<Found[]> => {
    const model = inductionModel(device, { vocabulary: VOCABULARY, context: length, window: WINDOW, second });
    const progress = new Progress(length, 0, { unit: 'token' });
    const begun = performance.now();
    try {
      return await findNeedles(model, given, { onRead: (done) => progress.update(done, {}) });
    } finally {
      progress.stop();
      model.release();
      const seconds = (performance.now() - begun) / 1000;
      console.log(`${second === 'tree' ? 'Window and tree' : 'Windows alone'}: ${duration(seconds)}`);
    }
  };
  const [tree, window] = [await look('tree'), await look('window')];
  const verdict = ({ answer, value, margin }: Found) => `${answer === value ? 'found' : 'no'} (${margin.toFixed(2)})`;
  console.log(
    `\n${length} tokens, window ${WINDOW}; in brackets, by how much the right token's logit exceeds all others:\n`,
  );
  console.log('| depth | position | tokens back | window and tree | windows alone |');
  console.log('|---|---|---|---|---|');
  tree.forEach((found, i) => {
    const { position } = found;
    const depth = `${((100 * position) / (length - 3)).toFixed(0)} %`;
    console.log(`| ${depth} | ${position} | ${length - 1 - position} | ${verdict(found)} | ${verdict(window[i]!)} |`);
  });
  const count = (all: readonly Found[]) =>
    `${all.filter(({ answer, value }) => answer === value).length} of ${NEEDLES}`;
  console.log(`| all | | | ${count(tree)} | ${count(window)} |`);
}
