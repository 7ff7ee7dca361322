// Assigns tasks to lanes. Each task gets the lowest lane that was free when the task
// began, so the result is always the same. A lane is not a slot: the manager does not
// number slots, and a task that waits for its own tasks has no slot.

export const MAX_LANES = 400 // maximum per pool; further tasks share the last lane

// lanes groups the nodes of tasks by pool, and within each pool by lane.
export function lanes(nodes) {
  const pools = new Map()
  for (const node of nodes) {
    let pool = pools.get(node.task.pool)
    if (!pool) pools.set(node.task.pool, (pool = { name: node.task.pool, nodes: [], lanes: [] }))
    pool.nodes.push(node)
  }
  for (const pool of pools.values()) fill(pool)
  return [...pools.values()].sort((a, b) => (a.name < b.name ? -1 : 1))
}

function fill(pool) {
  const run = pool.nodes.filter(node => node.task.started)
  run.sort((a, b) => a.task.started - b.task.started || a.task.n - b.task.n)
  const free = [] // the time when each lane becomes free
  for (const node of run) {
    let lane = free.findIndex(at => at <= node.task.started)
    if (lane < 0) lane = Math.min(free.length, MAX_LANES - 1)
    free[lane] = node.task.ended || Infinity
    ;(pool.lanes[lane] ??= []).push(node)
  }
}

// queueLengths divides a time span into equal pieces. For each piece, it returns the number
// of tasks that were waiting for a slot.
export function queueLengths(nodes, from, to, pieces, now) {
  const change = new Int32Array(pieces + 1)
  const piece = at => Math.max(Math.min(Math.floor(((at - from) / (to - from)) * pieces), pieces), 0)
  for (const { task } of nodes) {
    const left = task.started || task.ended || now
    if (left < from || task.queued > to || left - task.queued < 20) continue
    const a = piece(task.queued)
    change[a]++
    change[Math.max(piece(left), Math.min(a + 1, pieces))]--
  }
  const lengths = new Int32Array(pieces)
  for (let i = 0, n = 0; i < pieces; i++) lengths[i] = n += change[i]
  return lengths
}
