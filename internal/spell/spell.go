// Package spell compares names, so that error messages can suggest the intended name.
package spell

// Distance returns the minimum number of bytes to add, drop or replace in order to turn one name
// into the other. If the distance is at least bound, Distance may return any number that is at
// least bound.
func Distance(a, b string, bound int) int {
	if d := len(a) - len(b); d >= bound || -d >= bound {
		return bound
	}
	if a == b {
		return 0
	}
	var buf [64]int
	row := buf[:0]
	for j := range len(b) + 1 {
		row = append(row, j)
	}
	for i := range len(a) {
		diagonal, best := row[0], i+1
		row[0] = i + 1
		for j := range len(b) {
			d := diagonal
			if a[i] != b[j] {
				d++
			}
			diagonal = row[j+1]
			row[j+1] = min(d, row[j]+1, diagonal+1)
			best = min(best, row[j+1])
		}
		if best >= bound { // no later row has a smaller minimum
			return bound
		}
	}
	return row[len(b)]
}
