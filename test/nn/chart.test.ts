import sharp from 'sharp';
import { expect, it } from 'vitest';
import { intervalChart, lineChart } from '../../nn/chart.ts';

it('draws a chart with ink in it, leaving out what is not finite', async () => {
  const points = Array.from({ length: 50 }, (_, i) => [i, i === 7 ? NaN : Math.exp(-i / 20)] as const);
  const png = await lineChart('loss', [{ name: 'subject', points }]);
  const { width, height } = await sharp(png).metadata();
  expect(width).toBeGreaterThan(1000);
  expect(height).toBeGreaterThan(500);
  const { channels } = await sharp(png).stats();
  expect(channels[0]!.stdev).toBeGreaterThan(5);
});

it('draws a panel for each measure, a row for each name', async () => {
  const estimate = (name: string, measure: string) => ({ name, measure, mean: 0.5, half: name === 'a' ? 0.1 : null });
  const size = async (names: string[], measures: string[]) => {
    const png = await intervalChart('shares', names.flatMap((name) => measures.map((one) => estimate(name, one)))); // prettier-ignore
    expect((await sharp(png).stats()).channels[0]!.stdev).toBeGreaterThan(5);
    return sharp(png).metadata();
  };
  const small = await size(['a', 'b'], ['right']);
  const large = await size(['a', 'b', 'c'], ['right', 'drift']);
  expect(large.width).toBeGreaterThan(small.width + 300);
  expect(large.height).toBeGreaterThan(small.height + 30);
});
