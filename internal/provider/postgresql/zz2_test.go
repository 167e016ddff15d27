package postgresql

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
)

func TestScratchEff(t *testing.T) {
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, "host=127.0.0.1 port=54312 dbname=shop user=postgres")
	if err != nil { t.Fatal(err) }
	conn.Exec(ctx, "set search_path=pg_catalog")
	for _, esc := range []bool{false, true} {
	for _, name := range []string{"t", "v", "vv", "vb", "vplain", "vi", "mv", "inh", "p", "rls", "rls2", "nope", "t_id_seq", "grand2"} {
		for _, act := range []string{"SELECT", "INSERT", "UPDATE", "DELETE"} {
			w, err := sideEffects(ctx, conn, affected{Action: act, On: resource{schema: "eff", name: name}, Escalates: esc})
			t.Log(esc, name, act, err)
			for _, x := range w { t.Log("      ", x) }
		}
	}
	w, err := sideEffects(ctx, conn, affected{Action: "UPDATE", On: resource{schema: "eff", name: "t", columns: []string{"a"}}})
	t.Log("UPDATE(a)", err)
	for _, x := range w { t.Log("      ", x) }
	w, err = sideEffects(ctx, conn, affected{Action: "INSERT", On: resource{schema: "eff", name: "t", columns: []string{"a"}}, Companions: []resource{{schema: "eff", name: "t_id_seq"}}, Escalates: esc})
	t.Log("INSERT(a)+", err)
	for _, x := range w { t.Log("      ", x) }
	for _, f := range []string{"eff.f(integer)","eff.f2(integer)","eff.f3(integer)","eff.f4(integer)","eff.audit()","eff.zz()", "eff.bound()"} {
		w, err := routineEffects(ctx, conn, f, esc)
		t.Log(f, w, err)
	}
	}
}
