/** ONNX models of a few nodes: the handful of protobuf fields that they need, by the field numbers of onnx.proto. */
import type { Shape } from '../../../engine/index.ts';

const FLOAT = 1; // TensorProto.DataType
const INT64 = 7;

/** An unsigned number, seven bits a byte, the lowest first. */
function varint(value: number): number[] {
  const bytes: number[] = [];
  for (; value > 127; value = Math.floor(value / 128)) bytes.push((value % 128) | 128);
  return [...bytes, value];
}

const number = (field: number, value: number): number[] => [...varint(field * 8), ...varint(value)];

function bytes(field: number, content: string | readonly number[]): number[] {
  const data = typeof content === 'string' ? [...new TextEncoder().encode(content)] : content;
  return [...varint(field * 8 + 2), ...varint(data.length), ...data];
}

export interface Node {
  readonly type: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  /** Whole numbers alone. */
  readonly attributes?: Readonly<Record<string, number | readonly number[]>>;
  readonly domain?: 'com.microsoft';
}

function encodeNode({ type, inputs, outputs, attributes = {}, domain }: Node): number[] {
  const encodeAttribute = ([name, value]: [string, number | readonly number[]]): number[] =>
    typeof value === 'number'
      ? [...bytes(1, name), ...number(3, value), ...number(20, 2)] // type: INT
      : [...bytes(1, name), ...value.flatMap((one) => number(8, one)), ...number(20, 7)]; // type: INTS
  return [
    ...inputs.flatMap((name) => bytes(1, name)),
    ...outputs.flatMap((name) => bytes(2, name)),
    ...bytes(4, type),
    ...Object.entries(attributes).flatMap((attribute) => bytes(5, encodeAttribute(attribute))),
    ...(domain ? bytes(7, domain) : []),
  ];
}

function encodeValue([name, shape]: [string, Shape]): number[] {
  const dimensions = shape.flatMap((extent) => bytes(1, number(1, extent)));
  return [...bytes(1, name), ...bytes(2, bytes(1, [...number(1, FLOAT), ...bytes(2, dimensions)]))];
}

const encodeConstant = ([name, values]: [string, readonly number[]]): number[] => [
  ...number(1, values.length),
  ...number(2, INT64),
  ...values.flatMap((value) => number(7, value)),
  ...bytes(8, name),
];

/** A model's file. Inputs and outputs are f32; constants are lists of non-negative whole numbers. */
export function onnxModel(
  nodes: readonly Node[],
  inputs: Readonly<Record<string, Shape>>,
  outputs: Readonly<Record<string, Shape>>,
  constants: Readonly<Record<string, readonly number[]>> = {},
): Uint8Array {
  const operators = (domain: string, version: number) => bytes(8, [...bytes(1, domain), ...number(2, version)]);
  return Uint8Array.from([
    ...number(1, 9), // version of the format
    ...operators('', 17),
    ...operators('com.microsoft', 1),
    ...bytes(7, [
      ...nodes.flatMap((node) => bytes(1, encodeNode(node))),
      ...bytes(2, 'graph'),
      ...Object.entries(constants).flatMap((constant) => bytes(5, encodeConstant(constant))),
      ...Object.entries(inputs).flatMap((value) => bytes(11, encodeValue(value))),
      ...Object.entries(outputs).flatMap((value) => bytes(12, encodeValue(value))),
    ]),
  ]);
}
