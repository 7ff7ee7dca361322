package slots

// heap is a binary heap. It returns its first item in O(1), and adds or removes an item in
// O(log n). Each item stores its own index. The function "at" returns a pointer to that index.
type heap[T any] struct {
	items  []T
	before func(a, b T) bool
	at     func(T) *int
}

func (h *heap[T]) first() (x T, ok bool) {
	if len(h.items) == 0 {
		return x, false
	}
	return h.items[0], true
}

func (h *heap[T]) push(x T) {
	*h.at(x) = len(h.items)
	h.items = append(h.items, x)
	h.up(len(h.items) - 1)
}

func (h *heap[T]) remove(x T) {
	i, last := *h.at(x), len(h.items)-1
	h.swap(i, last)
	clear(h.items[last:])
	h.items = h.items[:last]
	if i < last {
		h.fix(h.items[i])
	}
}

// fix restores the order of the heap. It must be called when the place of x may have changed.
func (h *heap[T]) fix(x T) {
	i := *h.at(x)
	h.up(i)
	h.down(*h.at(x))
}

func (h *heap[T]) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if !h.before(h.items[i], h.items[parent]) {
			return
		}
		h.swap(i, parent)
		i = parent
	}
}

func (h *heap[T]) down(i int) {
	for {
		child := 2*i + 1
		if child >= len(h.items) {
			return
		}
		if child+1 < len(h.items) && h.before(h.items[child+1], h.items[child]) {
			child++
		}
		if !h.before(h.items[child], h.items[i]) {
			return
		}
		h.swap(i, child)
		i = child
	}
}

func (h *heap[T]) swap(i, j int) {
	h.items[i], h.items[j] = h.items[j], h.items[i]
	*h.at(h.items[i]), *h.at(h.items[j]) = i, j
}
