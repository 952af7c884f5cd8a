package docdb

// matchGlob reports whether s matches a Redis pattern: * any bytes, ? one byte,
// [a-z] or [^a-z] one byte of a class, \ the next byte itself.
//
// Only the last * is ever tried again: if what stands after a later * matches
// somewhere, an earlier one cannot be to blame for a failure behind it. So a
// match costs at most len(pattern) * len(s) steps, whatever the pattern; the
// obvious recursion takes exponential time on a*a*a*a*b.
func matchGlob(pattern, s []byte) bool {
	p, i := 0, 0
	star, from := -1, 0 // pattern after the last *, and where its rest was last tried
	for {
		if p < len(pattern) && pattern[p] == '*' {
			p++
			star, from = p, i
			continue
		}
		if p == len(pattern) && i == len(s) {
			return true
		}
		if p < len(pattern) && i < len(s) {
			if ok, next := matchOne(pattern, p, s[i]); ok {
				p, i = next, i+1
				continue
			}
		}
		if star < 0 || from >= len(s) {
			return false
		}
		from++
		p, i = star, from
	}
}

// matchOne matches one byte against the element of the pattern at p, which is
// not a *, and tells where the next element begins.
func matchOne(pattern []byte, p int, c byte) (ok bool, next int) {
	switch pattern[p] {
	case '?':
		return true, p + 1
	case '[':
		return matchClass(pattern, p+1, c)
	case '\\':
		if p+1 < len(pattern) {
			p++
		}
	}
	return pattern[p] == c, p + 1
}

// matchClass matches c against the class whose inside begins at p. As in Redis,
// a class that is not closed ends with the pattern, and a range may stand either
// way round.
func matchClass(pattern []byte, p int, c byte) (ok bool, next int) {
	not := p < len(pattern) && pattern[p] == '^'
	if not {
		p++
	}
	for p < len(pattern) && pattern[p] != ']' {
		switch {
		case pattern[p] == '\\' && p+1 < len(pattern):
			ok = ok || pattern[p+1] == c
			p += 2
		case p+2 < len(pattern) && pattern[p+1] == '-':
			low, high := min(pattern[p], pattern[p+2]), max(pattern[p], pattern[p+2])
			ok = ok || low <= c && c <= high
			p += 3
		default:
			ok = ok || pattern[p] == c
			p++
		}
	}
	if p < len(pattern) {
		p++ // the ]
	}
	return ok != not, p
}

// matchAll reports whether a pattern needs no look at all.
func matchAll(pattern []byte) bool {
	return len(pattern) == 0 || len(pattern) == 1 && pattern[0] == '*'
}
