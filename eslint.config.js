import path from 'node:path';
import { defineConfig } from 'eslint/config';
import tseslint from 'typescript-eslint';

/**
 * What each layer may import besides itself. `diffusion` and `llm` don't know each other; nobody imports tests, but for
 * the one exception below.
 */
const LAYERS = {
  engine: [],
  kernels: ['engine'],
  nn: ['engine', 'kernels'],
  diffusion: ['engine', 'kernels', 'nn'],
  llm: ['engine', 'kernels', 'nn'],
  cli: ['engine', 'kernels', 'nn', 'diffusion', 'llm'],
};

/** The benchmark runs the samples of the operations' table, which stands with the tests. */
const EXCEPTION = { from: path.join('cli', 'bench', 'operations.ts'), to: path.join('test', 'kernels') };

/** The import rule of the design, on static and dynamic imports and re-exports of relative paths. */
const layers = {
  meta: {
    type: 'problem',
    schema: [],
    messages: {
      higher: '{{from}}/ must not import {{to}}/: imports run cli → diffusion | llm → nn → kernels → engine.',
    },
  },
  create(context) {
    const folderOf = (file) => path.relative(context.cwd, file).split(path.sep)[0];
    const from = folderOf(context.filename);
    const allowed = LAYERS[from];
    if (!allowed) return {};
    const check = (node) => {
      const specifier = node.source?.value;
      if (typeof specifier !== 'string' || !specifier.startsWith('.')) return;
      const target = path.resolve(path.dirname(context.filename), specifier);
      const relative = (file) => path.relative(context.cwd, file);
      if (relative(context.filename) === EXCEPTION.from && relative(target).startsWith(EXCEPTION.to)) return;
      const to = folderOf(target);
      if ((to in LAYERS || to === 'test') && to !== from && !allowed.includes(to)) {
        context.report({ node: node.source, messageId: 'higher', data: { from, to } });
      }
    };
    return {
      ImportDeclaration: check,
      ImportExpression: check,
      ExportNamedDeclaration: check,
      ExportAllDeclaration: check,
    };
  },
};

export default defineConfig(
  { ignores: ['dist/', 'runs/', 'data/', 'coverage/', 'assets/', '**/.cache/'] },
  tseslint.configs.recommended,
  {
    linterOptions: { reportUnusedDisableDirectives: 'error' },
    plugins: { dawngrad: { rules: { layers } } },
    rules: {
      'dawngrad/layers': 'error',
      eqeqeq: ['error', 'always', { null: 'ignore' }],
      'no-var': 'error',
      'prefer-const': 'error',
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_', varsIgnorePattern: '^_' }],
    },
  },
  {
    // A promise nobody awaits hides a lost device or a failed save.
    files: ['**/*.ts'],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: { '@typescript-eslint/no-floating-promises': 'error', '@typescript-eslint/no-misused-promises': 'error' },
  },
);
