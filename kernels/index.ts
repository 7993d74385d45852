export * from './elementwise/elementwise.ts';
export * from './reduce/reduce.ts';
