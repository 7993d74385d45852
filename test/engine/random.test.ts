import { describe, expect, it } from 'vitest';
import { HostRandom, philox, randomKey } from '../../engine/index.ts';

describe('philox', () => {
  it('gives the known answers of the Random123 library', () => {
    const out = new Uint32Array(4);
    philox(out, 0, 0, 0, 0, 0, 0);
    expect([...out].map((word) => word.toString(16))).toEqual(['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']);
    const ones = 0xffffffff;
    philox(out, ones, ones, ones, ones, ones, ones);
    expect([...out].map((word) => word.toString(16))).toEqual(['408f276d', '41c83b0e', 'a20bc7c6', '6d5451fd']);
    philox(out, 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0);
    expect([...out].map((word) => word.toString(16))).toEqual(['d16cfe09', '94fdcceb', '5001e420', '24126ea1']);
  });
});

describe('host random numbers', () => {
  it('depend on seed, purpose, sample and step', () => {
    const draw = (seed: number, purpose: string, sample: number, step: number) =>
      new HostRandom(randomKey(seed, purpose), sample, step).word();
    const words = [draw(1, 'a', 0, 0), draw(2, 'a', 0, 0), draw(1, 'b', 0, 0), draw(1, 'a', 1, 0), draw(1, 'a', 0, 1)];
    expect(new Set(words).size).toBe(5);
    expect(draw(1, 'a', 0, 0)).toBe(words[0]);
    expect(draw(2 ** 32 + 1, 'a', 0, 0)).not.toBe(words[0]);
    expect(() => randomKey(-1, 'a')).toThrow(/a seed is a whole number/);
  });

  it('are uniform: a χ² test over 100 cells', () => {
    const random = new HostRandom(randomKey(3, 'test'));
    const cells = new Array<number>(100).fill(0);
    for (let i = 0; i < 100_000; i++) cells[Math.floor(random.uniform() * 100)]!++;
    const chi2 = cells.reduce((total, count) => total + (count - 1000) ** 2 / 1000, 0);
    expect(chi2).toBeLessThan(149); // 99.9 % of 99 degrees of freedom
  });

  it('are normal in their first four moments', () => {
    const values = new HostRandom(randomKey(4, 'test')).normal(200_000);
    const moment = (k: number) => values.reduce((total, value) => total + value ** k, 0) / values.length;
    // four standard errors each: √(var / n)
    expect(Math.abs(moment(1))).toBeLessThan(4 * Math.sqrt(1 / 2e5));
    expect(Math.abs(moment(2) - 1)).toBeLessThan(4 * Math.sqrt(2 / 2e5));
    expect(Math.abs(moment(3))).toBeLessThan(4 * Math.sqrt(15 / 2e5));
    expect(Math.abs(moment(4) - 3)).toBeLessThan(4 * Math.sqrt(96 / 2e5));
  });

  it('permute everything once', () => {
    const order = new HostRandom(randomKey(5, 'test')).permutation(50);
    expect([...order].sort((a, b) => a - b)).toEqual(Array.from({ length: 50 }, (_, i) => i));
    expect(order).not.toEqual([...order].sort((a, b) => a - b));
  });
});
