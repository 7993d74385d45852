/** A binary heap: the cheapest come first. */
export class Heap<T> {
  private readonly items: { readonly cost: number; readonly item: T }[] = [];

  push(cost: number, item: T): void {
    const { items } = this;
    let at = items.push({ cost, item }) - 1;
    for (let up = (at - 1) >> 1; at > 0 && items[up]!.cost > cost; at = up, up = (at - 1) >> 1) {
      [items[at], items[up]] = [items[up]!, items[at]!];
    }
  }

  pop(): { readonly cost: number; readonly item: T } | null {
    const { items } = this;
    const [first] = items;
    if (first === undefined) return null;
    const last = items.pop()!;
    if (items.length === 0) return first;
    items[0] = last;
    for (let at = 0; ;) {
      let least = at;
      for (const child of [2 * at + 1, 2 * at + 2]) {
        if (child < items.length && items[child]!.cost < items[least]!.cost) least = child;
      }
      if (least === at) return first;
      [items[at], items[least]] = [items[least]!, items[at]!];
      at = least;
    }
  }
}
