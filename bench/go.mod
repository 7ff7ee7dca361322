module github.com/bgagent/bgagent/bench

go 1.26.0

replace (
	github.com/bgagent/bgagent => ../
	github.com/bgagent/bgagent/sqlite => ../sqlite
)

require (
	github.com/alitto/pond/v2 v2.7.1
	github.com/bgagent/bgagent v0.0.0
	github.com/bgagent/bgagent/sqlite v0.0.0
	github.com/failsafe-go/failsafe-go v0.9.8
	github.com/gammazero/workerpool v1.3.0
	github.com/ncruces/go-sqlite3 v0.37.0
	github.com/panjf2000/ants/v2 v2.12.1
	github.com/sourcegraph/conc v0.3.0
	golang.org/x/sync v0.24.0
)

require (
	github.com/bits-and-blooms/bitset v1.24.4 // indirect
	github.com/gammazero/deque v1.2.2 // indirect
	github.com/google/uuid v1.6.0 // indirect
	github.com/ncruces/go-sqlite3-wasm/v6 v6.5.35401 // indirect
	github.com/ncruces/julianday v1.0.0 // indirect
	github.com/tailscale/hujson v0.0.0-20260727124030-b80ff77dac4f // indirect
	go.uber.org/atomic v1.7.0 // indirect
	go.uber.org/multierr v1.9.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
)
