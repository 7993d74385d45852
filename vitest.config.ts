import { tmpdir } from 'node:os';
import { defineConfig } from 'vitest/config';

// The Vulkan loader warns on every start without it; test processes inherit it.
process.env.XDG_RUNTIME_DIR ??= tmpdir();
// Tests see the rules' variants, not what `npm run tune` found on this machine.
process.env.DAWNGRAD_TUNING = 'off';

// A process for each group, one after the other: within one, the WebGPU device opens once and pipelines compile once.
// One for all would do if a process could map memory without end: the software adapter maps a page for every bind group,
// Linux allows 65,530 maps by default, and past them the process dies.
const all = 'test/**/*.test.ts';
const within = (folder: string) => `test/${folder}/**/*.test.ts`;
const engine = ['engine', 'kernels', 'nn', 'fuzz'].map(within);
const groups = [
  { name: 'engine', include: engine },
  { name: 'diffusion', include: [within('diffusion')] },
  { name: 'llm', include: [within('llm')] },
  { name: 'commands', include: [all], exclude: [...engine, within('diffusion'), within('llm')] },
];

export default defineConfig({
  test: {
    pool: 'forks',
    maxWorkers: 1,
    isolate: false,
    testTimeout: 120_000,
    hookTimeout: 120_000,
    projects: groups.map((group, groupOrder) => ({ extends: true, test: { ...group, sequence: { groupOrder } } })),
  },
});
