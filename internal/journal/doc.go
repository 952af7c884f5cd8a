// Package journal is the one fsynced sequence of files of a node.
package journal
