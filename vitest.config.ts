import { tmpdir } from 'node:os';
import { defineConfig } from 'vitest/config';

// The Vulkan loader warns on every start without it; test processes inherit it.
process.env.XDG_RUNTIME_DIR ??= tmpdir();
// Tests see the rules' variants, not what `npm run tune` found on this machine.
process.env.DAWNGRAD_TUNING = 'off';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    setupFiles: ['test/setup.ts'],
    // One process for all files, not isolated: modules load once.
    pool: 'forks',
    maxWorkers: 1,
    isolate: false,
    testTimeout: 120_000,
    hookTimeout: 120_000,
  },
});
