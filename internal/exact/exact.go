// Package exact finds what could make a program compute other bits on another
// processor, in another run or at another time. It analyses typed source and is
// run, as a test, over all packages whose results reach model bytes or scores.
//
// Its rules, by name:
//
//   - fusion: a floating-point product that is not rounded where it is made.
//     Where the hardware has a fused multiply-add, the compiler may use it for
//     x*y + z, which then rounds once instead of twice. It looks through
//     variables, slice elements, and arguments and results of functions that it
//     inlines, and it takes x/4 for a product; only a conversion, float64(x*y),
//     stops it. So a product, or a quotient by a power of two, must be the operand
//     of a conversion, of another product or quotient, or of a comparison. Complex
//     products and quotients are made of products that cannot be rounded; none is
//     accepted.
//   - math: a function of package math whose result depends on the processor,
//     and all of math/cmplx.
//   - integer: a floating-point value converted to an integer type. NaN and
//     values out of range give other integers on other processors.
//   - narrow: a 64-bit integer converted to float32, which 32-bit processors
//     round twice.
//   - map: the order of a map that may reach a result. A loop over a map is
//     accepted if it has no variables, if its body comes to the same in any
//     order (see loop), or if what it appends to a slice is sorted by the next
//     statement; maps.Keys, Values and All as the argument of a sort.
//   - sort: an order of equals that is left to the algorithm: an unstable sort
//     by a function, or a sort of floating-point values, where +0 and -0 are equals.
//   - clock: the time now.
//   - random: numbers from a seed that nobody chose, and the distributions of
//     math/rand that are computed with package math.
//
// The rules look at types, never at values, so they refuse some of what is
// harmless. Such places are named, with the reason, in a table of the test.
package exact

import (
	"fmt"
	"go/ast"
	"go/constant"
	"go/token"
	"go/types"
	"math"
	"reflect"
	"strings"

	"golang.org/x/tools/go/analysis"
	"golang.org/x/tools/go/analysis/passes/inspect"
	"golang.org/x/tools/go/ast/edge"
	"golang.org/x/tools/go/ast/inspector"
)

// Rule is the name of a rule.
type Rule string

const (
	Fusion  Rule = "fusion"
	Math    Rule = "math"
	Integer Rule = "integer"
	Narrow  Rule = "narrow"
	Map     Rule = "map"
	Sort    Rule = "sort"
	Clock   Rule = "clock"
	Random  Rule = "random"
)

// Finding is one place that breaks a rule.
type Finding struct {
	Pos      token.Pos
	Function string // the declared function around it, "F", or "T.M" for a method; "" outside of all
	Rule     Rule
	Message  string
}

// Analyzer reports every finding as a diagnostic, with the rule as category
// and at the beginning of the message, and returns them as []Finding.
var Analyzer = &analysis.Analyzer{
	Name:       "exact",
	Doc:        "find what could compute other bits on another processor or in another run",
	Requires:   []*analysis.Analyzer{inspect.Analyzer},
	ResultType: reflect.TypeFor[[]Finding](),
	Run:        run,
}

// pass is the work on one package.
type pass struct {
	*analysis.Pass
	found []Finding
}

func run(p *analysis.Pass) (any, error) {
	x := &pass{Pass: p}
	root := p.ResultOf[inspect.Analyzer].(*inspector.Inspector).Root()
	for c := range root.Preorder(
		(*ast.BinaryExpr)(nil), (*ast.AssignStmt)(nil), (*ast.CallExpr)(nil), (*ast.RangeStmt)(nil), (*ast.Ident)(nil),
	) {
		switch n := c.Node().(type) {
		case *ast.BinaryExpr:
			x.product(c, n)
		case *ast.AssignStmt:
			x.assignedProduct(c, n)
		case *ast.CallExpr:
			x.conversion(c, n)
		case *ast.RangeStmt:
			x.mapRange(c, n)
		case *ast.Ident:
			x.use(c, n)
		}
	}
	return x.found, nil
}

func (x *pass) say(c inspector.Cursor, rule Rule, format string, args ...any) {
	f := Finding{Pos: c.Node().Pos(), Function: function(c), Rule: rule, Message: fmt.Sprintf(format, args...)}
	x.found = append(x.found, f)
	x.Report(analysis.Diagnostic{Pos: f.Pos, Category: string(rule), Message: string(rule) + ": " + f.Message})
}

// function names the declared function around a place.
func function(c inspector.Cursor) string {
	for d := range c.Enclosing((*ast.FuncDecl)(nil)) {
		f := d.Node().(*ast.FuncDecl)
		if f.Recv == nil {
			return f.Name.Name
		}
		receiver := strings.TrimLeft(types.ExprString(f.Recv.List[0].Type), "(*")
		end := strings.IndexAny(receiver, "[)")
		if end < 0 {
			end = len(receiver)
		}
		return receiver[:end] + "." + f.Name.Name
	}
	return ""
}

// kinds returns the underlying types of t: one, or for a type parameter those
// of all that it may stand for.
func kinds(t types.Type) []types.Type {
	if t == nil {
		return nil
	}
	if p, ok := types.Unalias(t).(*types.TypeParam); ok {
		return terms(p.Constraint())
	}
	return []types.Type{t.Underlying()}
}

// terms returns the underlying types of a constraint, or more.
func terms(t types.Type) (all []types.Type) {
	switch u := t.Underlying().(type) {
	case *types.Interface:
		for e := range u.EmbeddedTypes() {
			all = append(all, terms(e)...)
		}
	case *types.Union:
		for e := range u.Terms() {
			all = append(all, terms(e.Type())...)
		}
	default:
		all = append(all, u)
	}
	return all
}

// some reports whether t is, or may stand for, a basic type with one of the
// properties.
func some(t types.Type, property types.BasicInfo) bool {
	for _, k := range kinds(t) {
		if b, ok := k.(*types.Basic); ok && b.Info()&property != 0 {
			return true
		}
	}
	return false
}

// every reports whether t is, and cannot but stand for, basic types with one of the
// properties.
func every(t types.Type, property types.BasicInfo) bool {
	for _, k := range kinds(t) {
		if b, ok := k.(*types.Basic); !ok || b.Info()&property == 0 {
			return false
		}
	}
	return t != nil
}

// product checks that a product is rounded.
func (x *pass) product(c inspector.Cursor, n *ast.BinaryExpr) {
	tv := x.TypesInfo.Types[n]
	if tv.Value != nil || !x.multiplies(n.Op, n.Y) {
		return
	}
	if some(tv.Type, types.IsComplex) {
		x.say(c, Fusion, "complex %s: its parts may be fused", types.ExprString(n))
		return
	}
	if !some(tv.Type, types.IsFloat) {
		return
	}
	parent := c.Parent()
	for {
		switch n := parent.Node().(type) {
		case *ast.ParenExpr:
			parent = parent.Parent()
			continue
		case *ast.UnaryExpr:
			if n.Op == token.ADD || n.Op == token.SUB {
				parent = parent.Parent()
				continue
			}
		case *ast.BinaryExpr:
			switch n.Op {
			case token.MUL, token.QUO, token.EQL, token.NEQ, token.LSS, token.LEQ, token.GTR, token.GEQ:
				return
			}
		case *ast.CallExpr:
			if x.TypesInfo.Types[n.Fun].IsType() {
				return
			}
		}
		break
	}
	x.say(c, Fusion, "%s may be fused with an addition: round it by a conversion", types.ExprString(n))
}

// multiplies reports whether the compiler may make a multiplication of x op y,
// for floating-point x and y.
func (x *pass) multiplies(op token.Token, y ast.Expr) bool {
	switch op {
	case token.MUL, token.MUL_ASSIGN:
		return true
	case token.QUO, token.QUO_ASSIGN:
		tv := x.TypesInfo.Types[y]
		if some(tv.Type, types.IsComplex) {
			return true
		}
		if tv.Value == nil {
			return false
		}
		v := constant.ToFloat(tv.Value)
		if v.Kind() != constant.Float {
			return false
		}
		f, _ := constant.Float64Val(v)
		fraction, _ := math.Frexp(math.Abs(f))
		return fraction == 0.5
	}
	return false
}

func (x *pass) assignedProduct(c inspector.Cursor, n *ast.AssignStmt) {
	if len(n.Rhs) == 1 && n.Tok != token.ASSIGN && n.Tok != token.DEFINE &&
		some(x.TypesInfo.TypeOf(n.Lhs[0]), types.IsFloat|types.IsComplex) && x.multiplies(n.Tok, n.Rhs[0]) {
		x.say(c, Fusion, "%s %s %s may be fused with an addition: assign a conversion of the product",
			types.ExprString(n.Lhs[0]), n.Tok, types.ExprString(n.Rhs[0]))
	}
}

// conversion checks conversions between integers and floating-point values.
func (x *pass) conversion(c inspector.Cursor, n *ast.CallExpr) {
	if !x.TypesInfo.Types[n.Fun].IsType() || len(n.Args) != 1 {
		return
	}
	to, from := x.TypesInfo.Types[n], x.TypesInfo.Types[n.Args[0]]
	if to.Value != nil || from.Value != nil {
		return
	}
	if some(to.Type, types.IsInteger) && some(from.Type, types.IsFloat) {
		x.say(c, Integer, "%s depends on the processor if the value is out of range or NaN", types.ExprString(n))
	}
	if basic(to.Type, types.Float32) && basic(from.Type, types.Int64, types.Uint64) {
		x.say(c, Narrow, "%s is rounded twice on 32-bit processors", types.ExprString(n))
	}
}

// basic reports whether t is, or may stand for, one of the basic types.
func basic(t types.Type, any ...types.BasicKind) bool {
	for _, k := range kinds(t) {
		if b, ok := k.(*types.Basic); ok {
			for _, want := range any {
				if b.Kind() == want {
					return true
				}
			}
		}
	}
	return false
}

// sameEverywhere are the functions of package math with one result on every
// processor.
const sameEverywhere = " Abs Ceil Copysign FMA Float32bits Float32frombits Float64bits Float64frombits Floor Frexp " +
	"Inf IsInf IsNaN Ldexp Max Min Mod Modf NaN Nextafter Nextafter32 Round RoundToEven Signbit Sqrt Trunc "

// use checks what a name stands for.
func (x *pass) use(c inspector.Cursor, n *ast.Ident) {
	obj := x.TypesInfo.Uses[n]
	if obj == nil || obj.Pkg() == nil {
		return
	}
	if _, ok := obj.(*types.PkgName); ok {
		return
	}
	path, name := obj.Pkg().Path(), obj.Name()
	full := path + "." + name
	if path == "crypto/rand" || path == "hash/maphash" {
		x.say(c, Random, "%s is another value in every run", full)
	}
	f, ok := obj.(*types.Func)
	if !ok {
		return
	}
	if r := f.Signature().Recv(); r != nil {
		switch f.FullName() {
		case "(*math/rand.Rand).NormFloat64", "(*math/rand.Rand).ExpFloat64",
			"(*math/rand/v2.Rand).NormFloat64", "(*math/rand/v2.Rand).ExpFloat64":
			x.say(c, Random, "%s depends on the processor", f.FullName())
		case "(*sync.Map).Range", "(reflect.Value).MapRange", "(reflect.Value).MapKeys", "(reflect.Value).Seq2", "(reflect.Value).Seq":
			x.say(c, Map, "%s has no fixed order", f.FullName())
		}
		return
	}
	switch path {
	case "math":
		if !strings.Contains(sameEverywhere, " "+name+" ") {
			x.say(c, Math, "%s depends on the processor", full)
		}
	case "math/cmplx":
		x.say(c, Math, "%s depends on the processor", full)
	case "time":
		switch name {
		case "Now", "Since", "Until":
			x.say(c, Clock, "%s: the time now must come in as a parameter", full)
		}
	case "math/rand", "math/rand/v2":
		switch name {
		case "New", "NewSource", "NewPCG", "NewChaCha8":
		default:
			x.say(c, Random, "%s: its seed is another one in every run, or it depends on the processor", full)
		}
	case "sort":
		switch name {
		case "Slice", "Sort":
			x.say(c, Sort, "%s leaves equals in any order", full)
		case "Float64s":
			x.say(c, Sort, "%s leaves +0 and -0 in any order", full)
		}
	case "slices":
		switch name {
		case "SortFunc", "SortedFunc":
			x.say(c, Sort, "%s leaves equals in any order", full)
		case "Sort", "Sorted":
			args := x.TypesInfo.Instances[n].TypeArgs
			if some(args.At(args.Len()-1), types.IsFloat) {
				x.say(c, Sort, "%s leaves +0 and -0 in any order", full)
			}
		}
	case "maps":
		switch name {
		case "Keys", "Values", "All":
			if !x.sorted(c) {
				x.say(c, Map, "%s has no fixed order", full)
			}
		}
	}
}

// sorted reports whether the name at c is that of a function whose result
// is, at once, the argument of slices.Sorted or slices.SortedFunc.
func (x *pass) sorted(c inspector.Cursor) bool {
	for c.ParentEdgeKind() == edge.SelectorExpr_Sel || c.ParentEdgeKind() == edge.IndexExpr_X || c.ParentEdgeKind() == edge.IndexListExpr_X {
		c = c.Parent()
	}
	if c.ParentEdgeKind() != edge.CallExpr_Fun {
		return false
	}
	c = c.Parent()
	if c.ParentEdgeKind() != edge.CallExpr_Args {
		return false
	}
	name := callee(x.TypesInfo, c.Parent().Node().(*ast.CallExpr))
	return name == "slices.Sorted" || name == "slices.SortedFunc"
}
