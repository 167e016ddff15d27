package postgresql

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
)

// calledBeta is a proxy of a server, by which it calls itself something like 18b4 instead
// of 18.4, as one that is not released does.
func calledBeta(t *testing.T, server string) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			go rename(client, server)
		}
	}()
	return listener.Addr().String()
}

func rename(client net.Conn, server string) {
	defer client.Close()
	upstream, err := net.Dial("tcp", server)
	if err != nil {
		return
	}
	defer upstream.Close()
	go func() { _, _ = io.Copy(upstream, client) }()
	const before = "server_version\x00"
	buffer := make([]byte, 64<<10)
	for {
		read, err := upstream.Read(buffer)
		answer := buffer[:read]
		if at := bytes.Index(answer, []byte(before)); at >= 0 && at+len(before)+2 < read && answer[at+len(before)+2] == '.' {
			answer[at+len(before)+2] = 'b'
		}
		if _, failed := client.Write(answer); failed != nil || err != nil {
			return
		}
	}
}

// What a server calls its version is not compared: a login can't become its holder on a
// server that is not released yet either.
func TestVersionThatIsNotANumber(t *testing.T) {
	everyVersion(t, func(t *testing.T) {
		p := servers.PostgreSQL
		s := newShop(t)
		m := newMount(t)
		s.exec("ALTER SCHEMA precision OWNER TO " + p.Engine.Name)
		address := fmt.Sprintf("%s:%d", p.Host, p.Port)
		fields := config(s, p.Engine)
		m.write("config/"+target, with(fields, "connection_url", strings.Replace(fields["connection_url"].(string), address, calledBeta(t, address), 1)))
		m.role("reads", map[string]any{"action": "SELECT", "resource": "ledger.entries"})
		minted := m.mint("reads/JIRA-1")
		_, err := s.connect(minted.login).Exec(t.Context(), "SET ROLE "+s.holderRole(minted.login))
		if may := err == nil; may != (p.Version == "15") {
			t.Errorf("it can become its holder: %t: %v", may, err)
		}
		m.revoke(minted)
	})
}
