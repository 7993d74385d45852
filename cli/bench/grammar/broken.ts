import type { HostRandom } from '../../../engine/random.ts';

/** The value with one thing changed at random: a member taken away or added, a value of another type in a place. */
export function broken(value: unknown, random: HostRandom): unknown {
  if (typeof value !== 'object' || value === null || random.below(4) === 0) {
    return [null, 'broken', -1.5, true, [], {}][random.below(6)];
  }
  if (Array.isArray(value)) {
    if (value.length === 0) return [null];
    const at = random.below(value.length);
    return value.map((item, index) => (index === at ? broken(item, random) : (item as unknown)));
  }
  const entries = Object.entries(value);
  if (entries.length === 0 || random.below(4) === 0) return { ...value, 'not expected': 1 };
  const at = random.below(entries.length);
  if (random.below(3) === 0) return Object.fromEntries(entries.filter((_, index) => index !== at));
  return Object.fromEntries(
    entries.map(([key, member], index) => [key, index === at ? broken(member, random) : member]),
  );
}
