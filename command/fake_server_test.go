//go:build unix

package command

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
)

// playServer acts as an MCP server with one tool, which answers that the given
// table is empty.
func playServer() {
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		var x struct {
			ID     json.RawMessage
			Method string
			Params struct {
				ProtocolVersion string
				Arguments       struct{ Table string }
			}
		}
		if err := json.Unmarshal(in.Bytes(), &x); err != nil {
			panic(err)
		}
		if x.ID == nil { // a notification
			continue
		}
		result := any(map[string]any{})
		switch x.Method {
		case "initialize":
			result = map[string]any{"protocolVersion": x.Params.ProtocolVersion, "capabilities": map[string]any{"tools": map[string]any{}},
				"serverInfo": map[string]string{"name": "db", "version": "1"}}
		case "tools/list":
			result = map[string]any{"tools": []any{map[string]any{"name": "read", "description": "reads a table",
				"inputSchema": map[string]any{"type": "object", "properties": map[string]any{"table": map[string]string{"type": "string"}}}}}}
		case "tools/call":
			result = map[string]any{"content": []any{map[string]string{"type": "text", "text": "the table " + x.Params.Arguments.Table + " is empty"}}}
		}
		out, err := json.Marshal(map[string]any{"jsonrpc": "2.0", "id": x.ID, "result": result})
		if err != nil {
			panic(err)
		}
		fmt.Println(string(out))
	}
}
