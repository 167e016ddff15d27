package circuit

import "slices"

// waiter is a call that waits for its turn, or for a probe's outcome.
type waiter struct {
	turn    turn
	granted bool          // before ready is closed; otherwise it is to try again
	ready   chan struct{} // closed when the waiting is over
}

// queue holds who waits, the longest first.
type queue []*waiter

func (q *queue) add(w *waiter) { *q = append(*q, w) }

func (q *queue) first() *waiter {
	first := (*q)[0]
	(*q)[0] = nil
	*q = (*q)[1:]
	return first
}

func (q *queue) remove(w *waiter) {
	if i := slices.Index(*q, w); i >= 0 {
		*q = slices.Delete(*q, i, i+1)
	}
}
