import sharp from 'sharp';
import { expect, it } from 'vitest';
import { lineChart } from '../../nn/chart.ts';

it('draws a chart with ink in it, leaving out what is not finite', async () => {
  const points = Array.from({ length: 50 }, (_, i) => [i, i === 7 ? NaN : Math.exp(-i / 20)] as const);
  const png = await lineChart('loss', [{ name: 'subject', points }]);
  const { width, height } = await sharp(png).metadata();
  expect(width).toBeGreaterThan(1000);
  expect(height).toBeGreaterThan(500);
  const { channels } = await sharp(png).stats();
  expect(channels[0]!.stdev).toBeGreaterThan(5);
});
