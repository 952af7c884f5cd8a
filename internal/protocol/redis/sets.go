package redis

import (
	"github.com/braiddb/braid/client"
)

// Sets: SADD SREM SPOP SMEMBERS SISMEMBER SMISMEMBER SCARD SRANDMEMBER SSCAN, and
// SINTER SUNION SDIFF SINTERCARD.
//
//   - The first ones are one operation at the leader of their key.
//   - The last four read their sets whole, from wherever they are, and compute here.
//     Sets of one tablet are read at one time, those of several tablets are not.
//   - Not here: SMOVE and the variants that store.
func setCommands() []*command {
	const g = "set"
	return []*command{
		{name: "sadd", arity: -3, flags: write | denyoom | fast, keys: oneKey, group: g, since: "1.0.0", summary: "Adds one or more members to a set. Creates the key if it doesn't exist.",
			build: func(k *call) error { return k.do(client.SAdd(k.args[1], k.args[2:]...), nil) }},
		{name: "srem", arity: -3, flags: write | fast, keys: oneKey, group: g, since: "1.0.0", summary: "Removes one or more members from a set. Deletes the set if the last member was removed.",
			build: func(k *call) error { return k.do(client.SRem(k.args[1], k.args[2:]...), nil) }},
		{name: "spop", arity: -2, flags: write | fast, keys: oneKey, group: g, since: "1.0.0", summary: "Returns one or more random members from a set after removing them. Deletes the set if the last member was popped.", build: buildSPop},
		{name: "smembers", arity: 2, flags: readonly, keys: oneKey, group: g, since: "1.0.0", summary: "Returns all members of a set.",
			build: func(k *call) error { return k.do(client.SMembers(k.args[1]), replySet) }},
		{name: "sismember", arity: 3, flags: readonly | fast, keys: oneKey, group: g, since: "1.0.0", summary: "Determines whether a member belongs to a set.",
			build: func(k *call) error { return k.do(client.SIsMember(k.args[1], k.args[2]), nil) }},
		{name: "smismember", arity: -3, flags: readonly | fast, keys: oneKey, group: g, since: "6.2.0", summary: "Determines whether multiple members belong to a set.",
			build: func(k *call) error { return k.do(client.SMIsMember(k.args[1], k.args[2:]...), nil) }},
		{name: "scard", arity: 2, flags: readonly | fast, keys: oneKey, group: g, since: "1.0.0", summary: "Returns the number of members in a set.",
			build: func(k *call) error { return k.do(client.SCard(k.args[1]), nil) }},
		{name: "srandmember", arity: -2, flags: readonly, keys: oneKey, group: g, since: "1.0.0", summary: "Get one or multiple random members from a set", build: buildSRandMember},
		{name: "sscan", arity: -3, flags: readonly, keys: oneKey, group: g, since: "2.8.0", summary: "Iterates over members of a set.",
			build: func(k *call) error { return buildScan(k, client.SScan) }},
		{name: "sinter", arity: -2, flags: readonly, keys: allKeys, group: g, since: "1.0.0", summary: "Returns the intersect of multiple sets.",
			build: func(k *call) error { return buildAlgebra(k, k.args[1:], intersect) }},
		{name: "sunion", arity: -2, flags: readonly, keys: allKeys, group: g, since: "1.0.0", summary: "Returns the union of multiple sets.",
			build: func(k *call) error { return buildAlgebra(k, k.args[1:], unite) }},
		{name: "sdiff", arity: -2, flags: readonly, keys: allKeys, group: g, since: "1.0.0", summary: "Returns the difference of multiple sets.",
			build: func(k *call) error { return buildAlgebra(k, k.args[1:], subtract) }},
		{name: "sintercard", arity: -3, flags: readonly | movableKeys, keys: noKeys, keysOf: numKeys, group: g, since: "7.0.0", summary: "Returns the number of members of the intersect of multiple sets.", build: buildSInterCard},
	}
}

// numKeys finds the keys of commands that say how many there are: args[1].
func numKeys(args [][]byte) [][]byte {
	if len(args) < 3 {
		return nil
	}
	n, ok := parseInt(args[1])
	if !ok || n < 1 || n > int64(len(args)-2) {
		return nil
	}
	return args[2 : 2+n]
}

// buildSPop: SPOP key [count].
func buildSPop(k *call) error {
	switch len(k.args) {
	case 2:
		return k.do(client.SPopOne(k.args[1], k.s.random()), nil)
	case 3:
		n, err := positiveCount(k.args[2])
		if err != nil {
			return err
		}
		return k.do(client.SPop(k.args[1], n, k.s.random()), replySet)
	}
	return errSyntax
}

// buildSRandMember: SRANDMEMBER key [count].
func buildSRandMember(k *call) error {
	o := client.RandomOptions{Seed: k.s.random(), Single: len(k.args) == 2}
	switch len(k.args) {
	case 2:
	case 3:
		n, err := randomCount(k.args[2])
		if err != nil {
			return err
		}
		o.Count = n
	default:
		return errSyntax
	}
	return k.do(client.SRandom(k.args[1], o), nil)
}

// buildAlgebra reads the sets of keys and answers what compute makes of them.
func buildAlgebra(k *call, keys [][]byte, compute func(sets []*client.Result) []*client.Result) error {
	for _, key := range keys {
		k.ops = append(k.ops, client.SMembers(key))
	}
	k.reply = func(w *writer, k *call) {
		if e := k.firstError(); e != nil {
			w.error(errorLine(e))
			return
		}
		members := compute(k.results)
		w.set(len(members))
		for _, m := range members {
			w.bulk(m.Bytes)
		}
	}
	return nil
}

func memberSet(items []*client.Result) map[string]struct{} {
	set := make(map[string]struct{}, len(items))
	for _, m := range items {
		set[string(m.Bytes)] = struct{}{}
	}
	return set
}

func intersect(sets []*client.Result) (members []*client.Result) {
	least := 0
	for i, s := range sets {
		if len(s.Items) < len(sets[least].Items) {
			least = i
		}
	}
	members = append(members, sets[least].Items...)
	for i, s := range sets {
		if i == least || len(members) == 0 {
			continue
		}
		in := memberSet(s.Items)
		kept := members[:0]
		for _, m := range members {
			if _, ok := in[string(m.Bytes)]; ok {
				kept = append(kept, m)
			}
		}
		members = kept
	}
	return members
}

func unite(sets []*client.Result) (members []*client.Result) {
	seen := map[string]struct{}{}
	for _, s := range sets {
		for _, m := range s.Items {
			if _, ok := seen[string(m.Bytes)]; !ok {
				seen[string(m.Bytes)] = struct{}{}
				members = append(members, m)
			}
		}
	}
	return members
}

func subtract(sets []*client.Result) (members []*client.Result) {
	var others []*client.Result
	for _, s := range sets[1:] {
		others = append(others, s.Items...)
	}
	in := memberSet(others)
	for _, m := range sets[0].Items {
		if _, ok := in[string(m.Bytes)]; !ok {
			members = append(members, m)
		}
	}
	return members
}

// buildSInterCard: SINTERCARD numkeys key [key ...] [LIMIT n].
func buildSInterCard(k *call) error {
	n, ok := parseInt(k.args[1])
	if !ok || n < 1 {
		return replyError("ERR numkeys should be greater than 0")
	}
	if n > int64(len(k.args)-2) {
		return replyError("ERR Number of keys can't be greater than number of args")
	}
	for rest := k.args[2+n:]; len(rest) > 0; rest = rest[2:] {
		if len(rest) < 2 || !fold(rest[0], "limit") {
			return errSyntax
		}
		limit, ok := parseInt(rest[1])
		if !ok || limit < 0 {
			return replyError("ERR LIMIT can't be negative")
		}
		k.n = limit
	}
	if err := buildAlgebra(k, k.args[2:2+n], intersect); err != nil {
		return err
	}
	k.reply = func(w *writer, k *call) {
		if e := k.firstError(); e != nil {
			w.error(errorLine(e))
			return
		}
		count := int64(len(intersect(k.results)))
		if k.n > 0 {
			count = min(count, k.n)
		}
		w.int(count)
	}
	return nil
}
