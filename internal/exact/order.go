package exact

import (
	"go/ast"
	"go/token"
	"go/types"
	"strings"

	"golang.org/x/tools/go/ast/inspector"
	"golang.org/x/tools/go/types/typeutil"
)

// mapRange checks a loop over a map.
func (x *pass) mapRange(c inspector.Cursor, n *ast.RangeStmt) {
	overMap := false
	for _, k := range kinds(x.TypesInfo.TypeOf(n.X)) {
		if _, ok := k.(*types.Map); ok {
			overMap = true
		}
	}
	if !overMap || blank(n.Key) && blank(n.Value) {
		return
	}
	l := &loop{info: x.TypesInfo, body: n.Body, written: map[types.Object]bool{}}
	if id, ok := n.Key.(*ast.Ident); ok && n.Tok == token.DEFINE {
		l.key = x.TypesInfo.Defs[id]
	}
	if n.Tok != token.DEFINE || !l.orderFree() {
		x.say(c, Map, "the order of %s may reach a result", types.ExprString(n.X))
		return
	}
	if l.list != nil && !x.sortedNext(c, l.list) {
		x.say(c, Map, "%s has the order of %s: sort it right after the loop", l.list.Name(), types.ExprString(n.X))
	}
}

func blank(e ast.Expr) bool {
	id, ok := e.(*ast.Ident)
	return e == nil || ok && id.Name == "_"
}

// sortedNext reports whether the statement after the loop sorts the slice by
// all that an element is. A stable sort by a function does not: it keeps the order
// of equals.
func (x *pass) sortedNext(c inspector.Cursor, list types.Object) bool {
	next, ok := c.NextSibling()
	if !ok {
		return false
	}
	s, ok := next.Node().(*ast.ExprStmt)
	if !ok {
		return false
	}
	call, ok := s.X.(*ast.CallExpr)
	if !ok || len(call.Args) == 0 {
		return false
	}
	switch callee(x.TypesInfo, call) {
	case "slices.Sort", "slices.SortFunc", "sort.Strings", "sort.Ints", "sort.Slice":
		id, ok := call.Args[0].(*ast.Ident)
		return ok && x.TypesInfo.Uses[id] == list
	}
	return false
}

// loop is the body of a loop over a map. It comes to the same in any order if
// all it does is, under any conditions, to
//
//   - declare variables for one step,
//   - count or combine integers by + - & | ^, or by min and max,
//   - set the element of a map that the key of the loop names,
//   - delete elements of a map,
//   - append to one slice, whose order the caller has to look after,
//   - or, doing nothing else, return constants, at every return the same;
//
// and none of the expressions in it calls a function that might do more, or
// reads what the body writes.
type loop struct {
	info    *types.Info
	body    *ast.BlockStmt
	key     types.Object
	written map[types.Object]bool // declared outside of the body
	list    types.Object          // what is appended to
	returns string                // the values returned, if any
	hidden  bool                  // something is written through a variable of the body, which may name anything
}

func (l *loop) orderFree() bool {
	ast.Inspect(l.body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.IncDecStmt:
			l.writes(n.X)
		case *ast.AssignStmt:
			for _, e := range n.Lhs {
				l.writes(e)
			}
		case *ast.RangeStmt:
			l.writes(n.Key)
			l.writes(n.Value)
		case *ast.CallExpr:
			if callee(l.info, n) == "delete" {
				l.writes(n.Args[0])
			}
		}
		return true
	})
	return !l.hidden && !l.written[l.key] && l.statements(l.body.List) && (l.returns == "" || len(l.written) == 0)
}

// writes notes the variable that holds what is assigned to.
func (l *loop) writes(e ast.Expr) {
	obj := l.root(e)
	if obj == nil {
		return
	}
	if !l.inner(obj) {
		l.written[obj] = true
	} else if _, whole := e.(*ast.Ident); !whole {
		l.hidden = true
	}
}

// inner reports whether obj is declared in the body.
func (l *loop) inner(obj types.Object) bool {
	return l.body.Pos() <= obj.Pos() && obj.Pos() < l.body.End()
}

// root returns the variable of which e is the whole or a part, or nil.
func (l *loop) root(e ast.Expr) types.Object {
	for {
		switch n := e.(type) {
		case *ast.Ident:
			return l.info.ObjectOf(n)
		case *ast.SelectorExpr:
			if id, ok := n.X.(*ast.Ident); ok {
				if _, ok := l.info.Uses[id].(*types.PkgName); ok {
					return l.info.Uses[n.Sel]
				}
			}
			e = n.X
		case *ast.IndexExpr:
			e = n.X
		case *ast.StarExpr:
			e = n.X
		case *ast.ParenExpr:
			e = n.X
		default:
			return nil
		}
	}
}

func (l *loop) statements(list []ast.Stmt) bool {
	for _, s := range list {
		if !l.statement(s) {
			return false
		}
	}
	return true
}

func (l *loop) statement(s ast.Stmt) bool {
	switch s := s.(type) {
	case nil, *ast.EmptyStmt:
		return true
	case *ast.BlockStmt:
		return l.statements(s.List)
	case *ast.BranchStmt:
		return s.Tok == token.CONTINUE && s.Label == nil
	case *ast.IfStmt:
		return l.statement(s.Init) && l.pure(s.Cond) && l.statements(s.Body.List) && l.statement(s.Else)
	case *ast.RangeStmt:
		return s.Tok != token.ASSIGN && l.pure(s.X) && l.inOrder(s.X) && l.statements(s.Body.List)
	case *ast.IncDecStmt:
		return l.integer(s.X)
	case *ast.ExprStmt:
		call, ok := s.X.(*ast.CallExpr)
		return ok && callee(l.info, call) == "delete" && l.place(call.Args[0]) && l.pure(call.Args[1])
	case *ast.ReturnStmt:
		return l.constants(s.Results)
	case *ast.AssignStmt:
		return l.assignment(s)
	}
	return false
}

// inOrder reports whether ranging over e takes nothing from it and runs no code.
func (l *loop) inOrder(e ast.Expr) bool {
	for _, k := range kinds(l.info.TypeOf(e)) {
		switch k.(type) {
		case *types.Slice, *types.Array, *types.Pointer, *types.Basic:
		default:
			return false
		}
	}
	return true
}

func (l *loop) assignment(s *ast.AssignStmt) bool {
	switch s.Tok {
	case token.DEFINE:
		for _, e := range s.Rhs {
			if !l.pure(e) {
				return false
			}
		}
		return true
	case token.ADD_ASSIGN, token.SUB_ASSIGN, token.AND_ASSIGN, token.OR_ASSIGN, token.XOR_ASSIGN:
		return l.integer(s.Lhs[0]) && l.pure(s.Rhs[0])
	case token.ASSIGN:
	default:
		return false
	}
	if len(s.Lhs) != 1 || len(s.Rhs) != 1 {
		return false
	}
	to, value := s.Lhs[0], s.Rhs[0]
	if id, ok := to.(*ast.Ident); ok && l.inner(l.info.ObjectOf(id)) {
		return l.pure(value)
	}
	if at, ok := to.(*ast.IndexExpr); ok {
		_, isMap := l.info.TypeOf(at.X).Underlying().(*types.Map)
		id, isIdent := at.Index.(*ast.Ident)
		return isMap && isIdent && l.key != nil && l.info.Uses[id] == l.key && l.place(at.X) && l.pure(value)
	}
	call, ok := value.(*ast.CallExpr)
	if !ok || len(call.Args) == 0 || types.ExprString(call.Args[0]) != types.ExprString(to) {
		return false
	}
	for _, e := range call.Args[1:] {
		if !l.pure(e) {
			return false
		}
	}
	switch callee(l.info, call) {
	case "min", "max":
		return l.integer(to)
	case "append":
		id, ok := to.(*ast.Ident)
		if !ok || l.list != nil && l.list != l.info.Uses[id] {
			return false
		}
		l.list = l.info.Uses[id]
		return l.list != nil
	}
	return false
}

// constants reports whether a return gives constants, the same as other
// returns.
func (l *loop) constants(results []ast.Expr) bool {
	text := "("
	for _, e := range results {
		tv := l.info.Types[e]
		if tv.Value == nil && !tv.IsNil() {
			return false
		}
		text += types.ExprString(e) + ","
	}
	if l.returns == "" {
		l.returns = text
	}
	return l.returns == text
}

// integer reports whether e is a place for an integer.
func (l *loop) integer(e ast.Expr) bool {
	return every(l.info.TypeOf(e), types.IsInteger) && l.place(e)
}

// place reports whether e is a part of a variable that is named without
// effects.
func (l *loop) place(e ast.Expr) bool {
	for {
		switch n := e.(type) {
		case *ast.Ident:
			return true
		case *ast.SelectorExpr:
			e = n.X
		case *ast.IndexExpr:
			if !l.pure(n.Index) {
				return false
			}
			e = n.X
		case *ast.StarExpr:
			e = n.X
		case *ast.ParenExpr:
			e = n.X
		default:
			return false
		}
	}
}

// harmless are functions that read their arguments and nothing else; "strings."
// stands for all of a package.
var harmless = []string{
	"len", "cap", "min", "max", "strings.", "bytes.", "strconv.", "cmp.", "unicode/utf8.",
	"slices.Clone", "slices.Contains", "slices.Equal", "slices.Index",
}

// pure reports whether e has no effects and is the same at every step but for
// the variables of the loop.
func (l *loop) pure(e ast.Expr) bool {
	ok := true
	ast.Inspect(e, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.Ident:
			if l.written[l.info.Uses[n]] {
				ok = false
			}
		case *ast.FuncLit:
			ok = false
		case *ast.UnaryExpr:
			if n.Op == token.ARROW {
				ok = false
			}
		case *ast.CallExpr:
			if l.info.Types[n.Fun].IsType() {
				break
			}
			name, known := callee(l.info, n), false
			for _, h := range harmless {
				known = known || name == h || strings.HasSuffix(h, ".") && strings.HasPrefix(name, h)
			}
			for _, a := range n.Args {
				_, isFunc := l.info.TypeOf(a).Underlying().(*types.Signature)
				known = known && !isFunc
			}
			ok = ok && known
		}
		return ok
	})
	return ok
}

// callee names the function that a call statically calls: "delete" for what
// the language has, "slices.Sort" for a function of a package, "" for all else.
func callee(info *types.Info, call *ast.CallExpr) string {
	switch f := typeutil.Callee(info, call).(type) {
	case *types.Builtin:
		return f.Name()
	case *types.Func:
		if f.Signature().Recv() == nil && f.Pkg() != nil {
			return f.Pkg().Path() + "." + f.Name()
		}
	}
	return ""
}
