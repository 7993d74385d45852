export * from './elementwise/elementwise.ts';
export * from './matmul/matmul.ts';
export * from './reduce/reduce.ts';
