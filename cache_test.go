package precision

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// A read of storage for one name holds up nobody who asks for another.
func TestALoadHoldsUpNoOtherName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		names := cache[int]{missing: errNoRole}
		storage := make(chan struct{})
		for i := range 16 {
			go func() {
				_, _ = names.get(context.Background(), fmt.Sprint("none-", i), func() (int, error) { <-storage; return 0, errNoRole })
			}()
		}
		synctest.Wait()
		if got, err := names.get(t.Context(), "role", func() (int, error) { return 7, nil }); got != 7 || err != nil {
			t.Errorf("%d, %v", got, err)
		}
		close(storage)
	})
}

// Readers of one name share a load, and what it finds missing is not looked for again.
func TestLoadsAreShared(t *testing.T) {
	names := cache[int]{missing: errNoRole}
	var loads atomic.Int64
	for _, want := range []error{nil, errNoRole} {
		loads.Store(0)
		for range 3 {
			var all sync.WaitGroup
			for range 32 {
				all.Go(func() {
					if _, err := names.get(t.Context(), fmt.Sprint(want), func() (int, error) { loads.Add(1); return 1, want }); !errors.Is(err, want) {
						t.Error(err)
					}
				})
			}
			all.Wait()
		}
		if loads.Load() != 1 {
			t.Errorf("%v was loaded %d times", want, loads.Load())
		}
	}
	names.drop(fmt.Sprint(errNoRole))
	if got, err := names.get(t.Context(), fmt.Sprint(errNoRole), func() (int, error) { return 2, nil }); got != 2 || err != nil {
		t.Errorf("after it was dropped: %d, %v", got, err)
	}
}

// What is dropped while it is loaded is loaded again.
func TestADropDuringALoadTakesEffect(t *testing.T) {
	for _, outcome := range []error{nil, errNoRole} {
		names := cache[int]{missing: errNoRole}
		_, err := names.get(t.Context(), "role", func() (int, error) { names.drop("role"); return 1, outcome })
		if !errors.Is(err, outcome) {
			t.Fatal(err)
		}
		if got, err := names.get(t.Context(), "role", func() (int, error) { return 2, nil }); got != 2 || err != nil {
			t.Errorf("%d, %v", got, err)
		}
	}
}

// A reader does not get another reader's fault, and waits no longer than it wants to.
func TestAnotherReadersFaultIsNotShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		names := cache[int]{missing: errNoRole}
		storage := make(chan struct{})
		go func() {
			_, _ = names.get(context.Background(), "role", func() (int, error) { <-storage; return 0, context.Canceled })
		}()
		synctest.Wait()
		hungUp, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := names.get(hungUp, "role", func() (int, error) { return 0, nil }); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		second := make(chan int)
		go func() {
			got, _ := names.get(context.Background(), "role", func() (int, error) { return 3, nil })
			second <- got
		}()
		synctest.Wait()
		close(storage)
		if got := <-second; got != 3 {
			t.Errorf("%d", got)
		}
	})
}

// What readers ask for in vain does not fill the memory.
func TestAbsentNamesAreFew(t *testing.T) {
	names := cache[int]{missing: errNoRole}
	for i := range 3 * maxAbsent {
		_, _ = names.get(t.Context(), fmt.Sprint(i), func() (int, error) { return 0, errNoRole })
	}
	if len(names.absent) > maxAbsent {
		t.Errorf("%d names are kept", len(names.absent))
	}
}
