package revocation

import (
	"cmp"
	"slices"
)

// node is a prefix that could stand for the prefixes of a cover below it.
type node struct {
	prefix   Prefix
	live     int     // sessions that it would end early; none for a prefix of the cover
	children []*node // narrower choices; none for a prefix of the cover
}

// widen makes a cover fit into room characters of a document, by fewer and
// shorter prefixes; it chooses what touches few live codes. Where even prefixes
// of a mark and a role part need more, it returns those.
//
// It is a knapsack on a tree. With a price on each character the best choice is
// found bottom-up, and the lowest price whose choice fits is found by bisection.
// What room that leaves is used to narrow again what touches most.
func widen(cover []Prefix, live []Code, room int) []Prefix {
	if size(cover) <= room {
		return cover
	}
	roots := trie(cover, live, shortest)
	cheap, dear := 0.0, float64(len(live)+1) // a character saved is worth at most all live sessions
	best := choose(roots, dear)
	if size(prefixesOf(best)) > room {
		return prefixesOf(best)
	}
	for range 40 {
		price := (cheap + dear) / 2
		if choice := choose(roots, price); size(prefixesOf(choice)) <= room {
			best, dear = choice, price
		} else {
			cheap = price
		}
	}
	return narrow(best, cheap, room)
}

func prefixesOf(nodes []*node) []Prefix {
	prefixes := make([]Prefix, len(nodes))
	for i, node := range nodes {
		prefixes[i] = node.prefix
	}
	return prefixes
}

// trie holds the prefixes of length depth and more above a sorted cover.
func trie(cover []Prefix, live []Code, depth int) []*node {
	var nodes []*node
	for len(cover) > 0 {
		text := cover[0].text[:depth]
		end := 1
		for end < len(cover) && cover[end].text[:depth] == text {
			end++
		}
		under := below(live, text)
		this := &node{prefix: Prefix{text}, live: len(under)}
		if len(cover[0].text) > depth {
			this.children = trie(cover[:end], under, depth+1)
			// A longer prefix that spares nobody is no choice.
			if only := this.children[0]; len(this.children) == 1 && only.live == this.live && len(only.children) > 0 {
				this.children = only.children
			}
		}
		nodes = append(nodes, this)
		cover = cover[end:]
	}
	return nodes
}

// choose picks the nodes of which sessions ended and characters, at that price,
// cost least together.
func choose(nodes []*node, price float64) []*node {
	chosen, _ := cheapest(nodes, price)
	return chosen
}

func cheapest(nodes []*node, price float64) (chosen []*node, cost float64) {
	for _, node := range nodes {
		wide := float64(node.live) + price*float64(entrySize(node.prefix))
		if len(node.children) > 0 {
			if below, narrow := cheapest(node.children, price); narrow <= wide {
				chosen, cost = append(chosen, below...), cost+narrow
				continue
			}
		}
		chosen, cost = append(chosen, node), cost+wide
	}
	return chosen, cost
}

// narrow takes nodes back for what is below them while that fits into room, those
// first that touch most.
func narrow(chosen []*node, price float64, room int) []Prefix {
	kept := map[*node][]*node{} // what stands for a chosen node
	total := size(prefixesOf(chosen))
	order := slices.Clone(chosen)
	slices.SortStableFunc(order, func(a, b *node) int { return cmp.Compare(b.live, a.live) })
	for _, node := range order {
		kept[node] = append(kept[node], node)
		if len(node.children) == 0 {
			continue
		}
		instead := choose(node.children, price)
		if more := size(prefixesOf(instead)) - entrySize(node.prefix); total+more <= room {
			kept[node], total = instead, total+more
		}
	}
	var prefixes []Prefix
	for _, node := range chosen {
		prefixes = append(prefixes, prefixesOf(kept[node])...)
	}
	return prefixes
}
