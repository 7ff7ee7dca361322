module github.com/bgagent/bgagent/examples/quickstart

go 1.26.0

require github.com/bgagent/bgagent v0.0.0

replace github.com/bgagent/bgagent => ../../
