package bgagent_test

import (
	"testing"

	"github.com/bgagent/bgagent/internal/hammer"
)

func TestHammer(t *testing.T) { hammer.Run(t) }
