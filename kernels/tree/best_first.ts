/** The exact search for the best leaf: what a beam is measured against. */
import { apply, empty, formatShape, noGrad, operation, wgsl } from '../../engine/index.ts';
import type { Tensor } from '../../engine/index.ts';
import { check, common } from './selection.ts';
import type { SelectionOptions, TreeOf } from './selection.ts';
import type { TreeSummaries } from './summaries.ts';

const source = wgsl(import.meta.url, './tree_best_first.wgsl');

/** Leaves that there may be: as many nodes may be open at once, in workgroup memory. Half the room is enough for half as many. */
const MOST = 2048;
/** A node's place and bound. */
const NODE_BYTES = 12;

type Inputs = readonly [q: Tensor, nodes: Tensor, starts: Tensor | null, k: Tensor];

export interface BestLeaf {
  /** u32 (B, T, KV): the leaf, 2³² − 1 where none lies before the window. */
  readonly leaf: Tensor;
  /** u32 (B, T, KV, 2): nodes that were opened to find it, and how many of them were leaves. */
  readonly opened: Tensor;
}

const bestFirstOp = operation<Inputs, TreeOf, readonly [Tensor, Tensor]>({
  name: 'bestLeaf',
  dtypes: ['float', 'f32', 'u32', 'any'],
  shape([q, nodes, starts, k], attributes) {
    check('bestLeaf', [q, nodes, starts], attributes);
    const { kind, block, keys } = attributes;
    const fail = (message: string): never => {
      throw new Error(`[bestLeaf] ${message}`);
    };
    if (kind !== 'boxes') fail(`summaries of kind ${kind} bound no score; boxes are needed`);
    if (Math.floor(keys / block) > MOST) fail(`${keys} keys have more leaves of ${block} than the ${MOST} that fit`);
    const expected = [q.shape[0]!, keys, nodes.shape[1]!, q.shape[3]!];
    if (formatShape(k.shape) !== formatShape(expected))
      fail(`k is ${formatShape(k.shape)}; the summaries are of keys ${formatShape(expected)}`);
    return [q.shape[0]!, q.shape[1]!, nodes.shape[1]!];
  },
  forward({ device }, [q, nodes, starts, k], attributes, shape) {
    const { defines, params, groups } = common([q, nodes, starts], attributes);
    const { keys, block } = attributes;
    const room = Math.floor(keys / block) <= MOST / 2 ? MOST / 2 : MOST;
    const memory = device.profile.workgroupMemory;
    if (room * NODE_BYTES >= memory)
      throw new Error(
        `[bestLeaf] ${keys} keys have more leaves of ${block} than the ${MOST / 2} that fit the ${memory} bytes of workgroup memory that this adapter has`,
      );
    const found = empty(device, shape, 'u32');
    const opened = empty(device, [...shape, 2], 'u32');
    device.run(
      device.kernel(source, {
        ...defines,
        ROOM: `${room}u`,
        NODES: '1u',
        F16: k.dtype === 'f16',
        K: k.dtype,
        STARTS: starts !== null,
      }),
      [q, nodes, k, found, opened, ...(starts ? [starts] : [])],
      params,
      groups,
    );
    return [found, opened];
  },
  backward: () => [null, null, null, null],
});

/**
 * Finds, for each query of q (B, T, H, D), the leaf before its window that holds the greatest q · k over all heads that read the
 * key head, by a best-first search over boxes; of several the first. The result is exact; the number of nodes opened depends on
 * the keys, and may be that of all. Up to 2048 leaves, 1024 where an adapter has less than 32 KiB of workgroup memory.
 * k (B, Tk, KV, D) are the keys that the summaries are of.
 */
export function bestLeaf(
  q: Tensor,
  k: Tensor,
  { nodes, ...tree }: TreeSummaries,
  { window, starts }: Pick<SelectionOptions, 'window' | 'starts'>,
): BestLeaf {
  const { block, fanout, kind, keys } = tree;
  const inputs: Inputs = [q, nodes, starts ?? null, k];
  const [leaf, opened] = noGrad(q.device, () => apply(bestFirstOp, inputs, { block, fanout, kind, keys, window }));
  return { leaf, opened };
}
