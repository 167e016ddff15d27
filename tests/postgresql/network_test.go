package postgresql

import (
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"
)

// network stands between the engine and a server, and can lose calls. A call is what
// the server answers as one: a query, or a batch of messages up to its Sync. How a
// connection is made is none.
type network struct {
	address string // where the engine is to look for the server
	server  string

	mu       sync.Mutex
	from     int // the call that is lost first, and all after it
	lossy    bool
	executed bool
	calls    int
}

func newNetwork(t *testing.T, server string) *network {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &network{address: listener.Addr().String(), server: server}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			all.Go(func() { n.serve(client) })
		}
	})
	t.Cleanup(func() { _ = listener.Close() })
	return n
}

// LoseFrom implements providertest.Network.
func (n *network) LoseFrom(call int, executed bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.from, n.lossy, n.executed, n.calls = call, true, executed, 0
}

// Heal implements providertest.Network.
func (n *network) Heal() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lossy = false
	return n.calls
}

// Swallowed implements providertest.Network. No answer of the server's holds a secret.
func (n *network) Swallowed() [][]byte { return nil }

// next counts a call, and says what becomes of it.
func (n *network) next() (lost, executed bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	call := n.calls
	n.calls++
	return n.lossy && call >= n.from, n.executed
}

// serve passes on what a client and the server say, until one of them has gone or a
// call is lost.
func (n *network) serve(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", n.server)
	if err != nil {
		return
	}
	defer server.Close()
	var mu sync.Mutex
	mute := false              // the client hears no more
	ready := make(chan any, 1) // the server has answered what it was asked, or has gone
	go func() {
		defer close(ready)
		defer client.Close()
		for {
			message, kind, err := read(server, false)
			if err != nil {
				return
			}
			mu.Lock()
			if !mute {
				_, err = client.Write(message)
			}
			silent := mute
			mu.Unlock()
			if err != nil || (kind == 'Z' && silent) {
				return
			}
		}
	}()
	for start := true; ; start = false {
		message, kind, err := read(client, start)
		if err != nil {
			return
		}
		if kind != 'Q' && kind != 'S' {
			if _, err := server.Write(message); err != nil {
				return
			}
			continue
		}
		lost, executed := n.next()
		if lost && !executed {
			return // what has come before it of a batch ends with the connection
		}
		if lost {
			mu.Lock()
			mute = true
			mu.Unlock()
		}
		if _, err := server.Write(message); err != nil {
			return
		}
		if lost {
			<-ready
			return
		}
	}
}

// read reads a message; the first of a client has no kind.
func read(from io.Reader, first bool) (message []byte, kind byte, err error) {
	head := make([]byte, 5)
	if first {
		head = head[:4]
	}
	if _, err := io.ReadFull(from, head); err != nil {
		return nil, 0, err
	}
	if !first {
		kind = head[0]
	}
	length := binary.BigEndian.Uint32(head[len(head)-4:])
	message = append(head, make([]byte, length-4)...)
	_, err = io.ReadFull(from, message[len(head):])
	return message, kind, err
}
