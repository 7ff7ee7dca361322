package bgagent

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bgagent/bgagent/internal/jsonc"
)

// The code in this file handles the key "budget" of a file. Its value has the members "task" and
// "tree". Each of them is an object that contains limits. The valueID of a limit has an entry such
// as "task.cost".

// budgetKey is the key of the budgets in a file.
const budgetKey = "budget"

// budgetKeys holds the keys of the limits in a file.
var budgetKeys = [budgetParts]string{"inputTokens", "outputTokens", "totalTokens", "cost", "toolCalls"}

// budgetPeriod is the key of Config.BudgetPeriod, which is a member of "tree".
const budgetPeriod = "periodMs"

// microDollars is the number that represents 1 US dollar in memory. All values from a file are
// stored as whole numbers, so costs are stored in millionths of a dollar.
const microDollars = 1e6

// mostDollars is the largest cost that a file may contain.
const mostDollars = 1e9

// budgetMembers returns the keys that the object "task" or "tree" can have.
func budgetMembers(whose string) []string {
	if whose == "tree" {
		return append(slices.Clone(budgetKeys[:]), budgetPeriod)
	}
	return budgetKeys[:]
}

// budgetEntries returns the entries of all values under the key "budget", in the order that
// FormatConfig uses.
func budgetEntries() (all []string) {
	for _, whose := range [...]string{"task", "tree"} {
		for _, key := range budgetMembers(whose) {
			all = append(all, whose+"."+key)
		}
	}
	return all
}

// budgetKeyOf describes the value of any member of "task" or "tree" except "cost".
func budgetKeyOf(key string) *fileKey {
	if key == budgetPeriod {
		return &fileKey{key: budgetKey, kind: keyMs, zero: timeLimits[limitBudgetPeriod].off}
	}
	return &fileKey{key: budgetKey, kind: keyCount, zero: "no limit"}
}

// The method "budgets" reads the value of the key "budget".
func (p *fileParser) budgets(v jsonc.Value) {
	const want = `it must be an object like { "task": { "cost": 2.5 }, "tree": { "toolCalls": 500 } }, or null`
	members, ok := v.Members()
	if !ok {
		p.fail(v.Errorf(keyPath(budgetKey), "is %s; "+want, v.Describe()))
		return
	}
	seen := map[string]int{}
	for _, m := range members {
		path := keyPath(budgetKey) + "." + m.Name
		switch first, twice := seen[m.Name]; {
		case m.Name != "task" && m.Name != "tree":
			p.fail(m.Errorf(path, "is not a known budget; the budgets are task and tree"))
		case twice:
			p.fail(m.Errorf(path, "%s", twiceText(nil, first)))
		default:
			p.budget(m, path)
		}
		seen[m.Name] = m.At().Line
	}
}

// The method "budget" reads the limits of one budget, "task" or "tree".
func (p *fileParser) budget(of jsonc.Member, path string) {
	known := budgetMembers(of.Name)
	if of.Value.IsNull() {
		for _, key := range known {
			p.values[valueID{budgetKey, of.Name + "." + key}] = value{null: true, origin: Origin(of.At())}
		}
		return
	}
	members, ok := of.Value.Members()
	if !ok {
		p.fail(of.Value.Errorf(path, `is %s; it must be an object of limits like { "cost": 2.5, "toolCalls": 200 }, or null`, of.Value.Describe()))
		return
	}
	seen := map[string]int{}
	for _, m := range members {
		path, id, at := path+"."+m.Name, valueID{budgetKey, of.Name + "." + m.Name}, Origin(m.At())
		first, twice := seen[m.Name]
		seen[m.Name] = at.Line
		switch {
		case !slices.Contains(known, m.Name):
			p.fail(m.Errorf(path, "is not a known limit; the limits are %s", strings.Join(known, ", ")))
		case twice:
			p.fail(m.Errorf(path, "%s", twiceText(nil, first)))
		case m.Value.IsNull():
			p.values[id] = value{null: true, origin: at}
		case m.Name == budgetKeys[BudgetCost]:
			if n, ok := p.dollars(path, m.Value); ok {
				p.values[id] = value{n: n, origin: at}
			}
		default:
			if n, ok := p.number(budgetKeyOf(m.Name), path, m.Value); ok {
				p.values[id] = value{n: n, origin: at}
			}
		}
	}
}

// The method "dollars" reads a cost. The result is in millionths of a US dollar.
func (p *fileParser) dollars(path string, v jsonc.Value) (int64, bool) {
	text, ok := v.Number()
	x, err := strconv.ParseFloat(text, 64)
	switch {
	case !ok:
		p.fail(v.Errorf(path, "is %s; it must be a number of US dollars, or 0 for no limit", v.Describe()))
	case err != nil || x < 0 || x > mostDollars:
		p.fail(v.Errorf(path, "is %.40s; it must be a number of US dollars between 0, for no limit, and %.0f", text, mostDollars))
	case x > 0 && x < 1/microDollars:
		p.fail(v.Errorf(path, "is %.40s; the smallest limit is 0.000001 US dollars", text))
	default:
		return int64(math.Round(x * microDollars)), true
	}
	return 0, false
}

// applyBudget sets the field of c that belongs to the entry.
func applyBudget(c *Config, entry string, n int64) {
	whose, key, _ := strings.Cut(entry, ".")
	b := &c.TaskBudget
	if whose == "tree" {
		b = &c.TreeBudget
	}
	switch key {
	case budgetKeys[BudgetInputTokens]:
		b.InputTokens = n
	case budgetKeys[BudgetOutputTokens]:
		b.OutputTokens = n
	case budgetKeys[BudgetTotalTokens]:
		b.TotalTokens = n
	case budgetKeys[BudgetCost]:
		b.Cost = float64(n) / microDollars
	case budgetKeys[BudgetToolCalls]:
		b.ToolCalls = int(n)
	case budgetPeriod:
		c.BudgetPeriod = time.Duration(budgetKeyOf(key).toConfig(n))
	default:
		panic("bgagent: bug: a budget without the entry " + entry)
	}
}

// budgetText returns the value of an entry as JSON text for a file.
func budgetText(entry string, n int64) string {
	if strings.HasSuffix(entry, "."+budgetKeys[BudgetCost]) {
		return strconv.FormatFloat(float64(n)/microDollars, 'f', -1, 64)
	}
	return strconv.FormatInt(n, 10)
}

// formatBudgets returns the value of the key "budget" as JSON text, or "" if c sets no budget.
func formatBudgets(c *Config) (string, error) {
	task, err := formatBudget("Config.TaskBudget", &c.TaskBudget)
	if err != nil {
		return "", err
	}
	tree, err := formatBudget("Config.TreeBudget", &c.TreeBudget)
	if err != nil {
		return "", err
	}
	if c.BudgetPeriod != 0 {
		n, err := budgetKeyOf(budgetPeriod).fromConfig(int64(c.BudgetPeriod))
		if err != nil {
			return "", &InputError{limitBudgetPeriod.field(), err.Error()}
		}
		tree = append(tree, jsonMember{budgetPeriod, strconv.FormatInt(n, 10)})
	}
	var all []jsonMember
	if len(task) > 0 {
		all = append(all, jsonMember{"task", jsonObject(task, "      ")})
	}
	if len(tree) > 0 {
		all = append(all, jsonMember{"tree", jsonObject(tree, "      ")})
	}
	if len(all) == 0 {
		return "", nil
	}
	return jsonObject(all, "    "), nil
}

func formatBudget(field string, b *Budget) (members []jsonMember, err error) {
	if err := b.check(field); err != nil {
		return nil, err
	}
	for p := range budgetParts {
		x := b.of(p)
		if x == 0 {
			continue
		}
		text := strconv.FormatFloat(x, 'f', -1, 64)
		if p == BudgetCost {
			n := math.Round(x * microDollars)
			if x > mostDollars || float64(int64(n))/microDollars != x {
				return nil, &InputError{field + ".Cost", fmt.Sprintf("is %v; a file holds at most six decimals and %.0f", x, mostDollars)}
			}
		}
		members = append(members, jsonMember{budgetKeys[p], text})
	}
	return members, nil
}
