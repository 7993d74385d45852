export * from './conv/conv2d.ts';
export * from './elementwise/elementwise.ts';
export * from './matmul/matmul.ts';
export * from './optim/optim.ts';
export * from './random/random.ts';
export * from './reduce/reduce.ts';
export * from './sampler/sampler.ts';
