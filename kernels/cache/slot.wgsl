// Where a position lies in a cache: sinks at their own places, the others in turn in what is left.
fn slotOf(position: u32) -> u32 {
  if (position < params.sinks) { return position; }
  return params.sinks + (position - params.sinks) % (params.slots - params.sinks);
}
