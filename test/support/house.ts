// The house rules as pure functions over sources: path → text. What they are for is in CONTRIBUTING.md; the rules run in test/house.test.ts.
import ts from 'typescript'

/** Repository path, forward slashes → source text. */
export type Sources = Map<string, string>

type Import = { from: string; to: string; typeOnly: boolean }

// Which area may import which.
const DIRECTION: Record<string, string[]> = {
  proto: ['proto'],
  keys: ['keys', 'proto'],
  server: ['server', 'keys', 'proto'],
  client: ['client', 'proto'],
}
// A pool is handed to the key directory; it needs the name of its type, nothing else.
const TYPES_ANYWHERE = new Set(['server/database.ts'])

/** Library → the files that may import it. Types are free: they vanish. */
export const OWNERS: Record<string, RegExp> = {
  postgres: /^server\/database\.ts$/,
  'uWebSockets.js': /^server\/socket\.ts$/,
  jose: /^server\/tokens\.ts$/,
  '@signalapp/libsignal-client': /^(keys\/verify\.ts$|client\/crypto\/)/,
  pino: /^server\/observe\.ts$/,
  'pino-pretty': /^server\/observe\.ts$/,
  'prom-client': /^server\/observe\.ts$/,
  ioredis: /^server\/bus\/redis-connection\.ts$/,
  zod: /^(server\/http\/|keys\/(http|wire)\.ts$|server\/variables\.ts$)/,
  'proto/generated/relay.js': /^(server\/(signal-|event-)?codec|client\/wire)\.ts$/,
  'proto/generated/content.js': /^client\/(content|crypto\/provision)\.ts$/,
  protobufjs: /^server\/codec\.ts$/,
  ws: /^client\/transport\/ws\.ts$/,
  '@signalapp/sqlcipher': /^client\/storage\/sqlite\.ts$/,
}

const FORBIDDEN = /^(utils?|common|helpers?|services?|managers?)$/i
const MAX_LINES = 350

const areaOf = (path: string): string => path.split('/')[0]!
const governed = (path: string): boolean => areaOf(path) in DIRECTION

const parse = (path: string, text: string) => ts.createSourceFile(path, text, ts.ScriptTarget.Latest, true)

function resolve(from: string, specifier: string): string {
  if (!specifier.startsWith('.')) return specifier
  const parts = [...from.split('/').slice(0, -1)]
  for (const part of specifier.split('/')) {
    if (part === '..') parts.pop()
    else if (part !== '.') parts.push(part)
  }
  return parts.join('/')
}

/** Every import and re-export, dynamic ones included. */
export function importsOf(path: string, text: string): Import[] {
  const found: Import[] = []
  const add = (specifier: ts.Node | undefined, typeOnly: boolean) => {
    if (specifier && ts.isStringLiteralLike(specifier)) {
      found.push({ from: path, to: resolve(path, specifier.text), typeOnly })
    }
  }
  const walk = (node: ts.Node): void => {
    if (ts.isImportDeclaration(node)) {
      const named = node.importClause?.namedBindings
      const allTypes =
        !!named &&
        ts.isNamedImports(named) &&
        !node.importClause?.name &&
        named.elements.every((each) => each.isTypeOnly)
      add(node.moduleSpecifier, node.importClause?.isTypeOnly === true || allTypes)
    } else if (ts.isExportDeclaration(node)) add(node.moduleSpecifier, node.isTypeOnly)
    else if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword) {
      add(node.arguments[0], false)
    }
    ts.forEachChild(node, walk)
  }
  walk(parse(path, text))
  return found
}

const library = (to: string): string => (to.startsWith('@') ? to.split('/').slice(0, 2).join('/') : to.split('/')[0]!)

/** Imports against the direction server → keys → proto, client → proto. */
export function wrongDirections(sources: Sources): string[] {
  return each(sources, ({ from, to, typeOnly }) => {
    const target = areaOf(to)
    const inside = ['proto', 'keys', 'server', 'client', 'scripts', 'test'].includes(target) && to.includes('/')
    if (!inside || DIRECTION[areaOf(from)]!.includes(target) || (typeOnly && TYPES_ANYWHERE.has(to))) return null
    return `${from} imports ${to}`
  })
}

/** Imports of a library outside the one file it lives in. */
export function wrongOwners(sources: Sources): string[] {
  return each(sources, ({ from, to, typeOnly }) => {
    const owner = OWNERS[to] ?? OWNERS[library(to)]
    return !owner || typeOnly || owner.test(from) ? null : `${from} imports ${to}`
  })
}

/** Files of the SDK that only Node can load; everything else of it runs in browsers and React Native. */
const NODE_ONLY = /^client\/(node|crypto\/[a-z-]+|storage\/sqlite|transport\/ws)\.ts$/

/** Imports that keep the SDK's core from browsers: of Node itself, and of the files that need it. */
export function nodeImports(sources: Sources): string[] {
  return each(sources, ({ from, to, typeOnly }) => {
    if (areaOf(from) !== 'client' || NODE_ONLY.test(from) || from.startsWith('client/examples/') || typeOnly)
      return null
    return to.startsWith('node:') || NODE_ONLY.test(to) ? `${from} imports ${to}` : null
  })
}

function each(sources: Sources, complain: (found: Import) => string | null): string[] {
  return [...sources]
    .filter(([path]) => governed(path))
    .flatMap(([path, text]) => importsOf(path, text).map(complain))
    .filter((line) => line !== null)
}

/** Cycles of imports that exist at run time, each once, as a → b → a. */
export function cycles(sources: Sources): string[] {
  const edges = new Map<string, string[]>()
  for (const [path, text] of sources) {
    const targets = importsOf(path, text).filter(({ to, typeOnly }) => !typeOnly && sources.has(to))
    edges.set(
      path,
      targets.map(({ to }) => to),
    )
  }
  const found: string[] = []
  const done = new Set<string>()
  const visit = (path: string, trail: string[]): void => {
    const at = trail.indexOf(path)
    if (at >= 0) found.push([...trail.slice(at), path].join(' → '))
    if (at >= 0 || done.has(path)) return
    for (const next of edges.get(path) ?? []) visit(next, [...trail, path])
    done.add(path)
  }
  for (const path of edges.keys()) visit(path, [])
  return found
}

/** Paths and exported names that say nothing. */
export function emptyNames(sources: Sources): string[] {
  return [...sources].flatMap(([path, text]) => {
    const parts = path.split(/[/._-]/)
    const names = exportsOf(path, text).flatMap(({ names }) => names)
    return [
      ...(parts.some((part) => FORBIDDEN.test(part)) ? [path] : []),
      ...names
        .filter((name) => name.split(/(?=[A-Z])|_/).some((part) => FORBIDDEN.test(part)))
        .map((name) => `${path}: ${name}`),
    ]
  })
}

/** Files that should be two. */
export const longFiles = (sources: Sources): string[] =>
  [...sources]
    .map(([path, text]) => ({ path, lines: text.trimEnd().split('\n').length }))
    .filter(({ lines }) => lines > MAX_LINES)
    .map(({ path, lines }) => `${path}: ${lines} lines`)

/** Readers of the environment besides server/config.ts. */
export const environmentReaders = (sources: Sources): string[] =>
  [...sources]
    .filter(
      ([path, text]) =>
        governed(path) &&
        path !== 'server/config.ts' &&
        /process\s*\.\s*env\b|\bimport\b.*\benv\b.*node:process/.test(text),
    )
    .map(([path]) => path)

/** Files that do not say in their first line what lives in them. */
export const unopened = (sources: Sources): string[] =>
  [...sources].filter(([, text]) => !/^(#!.*\n)?\/\/ \S/.test(text)).map(([path]) => path)

/** Exports without a docstring. Lines directly below a documented export belong to it; a type or class may have its words at its members. */
export function undocumented(sources: Sources): string[] {
  return [...sources]
    .filter(([path]) => governed(path))
    .flatMap(([path, text]) => {
      let documented = false
      let endsAt = -2
      return exportsOf(path, text).flatMap(({ names, doc, firstLine, lastLine }) => {
        const grouped = documented && firstLine === endsAt + 1
        documented = doc || grouped
        endsAt = lastLine
        return documented ? [] : names.map((name) => `${path}: ${name}`)
      })
    })
}

type Export = { names: string[]; doc: boolean; firstLine: number; lastLine: number }

function exportsOf(path: string, text: string): Export[] {
  const file = parse(path, text)
  const line = (position: number) => file.getLineAndCharacterOfPosition(position).line
  return file.statements.flatMap((statement): Export[] => {
    const modifiers = ts.canHaveModifiers(statement) ? (ts.getModifiers(statement) ?? []) : []
    if (!modifiers.some((each) => each.kind === ts.SyntaxKind.ExportKeyword)) return []
    const names = ts.isVariableStatement(statement)
      ? statement.declarationList.declarations.map((each) => each.name.getText())
      : [(statement as ts.DeclarationStatement).name?.getText() ?? 'default']
    const doc = hasDoc(statement) || membersOf(statement).some(hasDoc)
    return [{ names, doc, firstLine: line(statement.getStart()), lastLine: line(statement.getEnd()) }]
  })
}

const hasDoc = (node: ts.Node): boolean => ts.getJSDocCommentsAndTags(node).length > 0

function membersOf(node: ts.Node): ts.Node[] {
  if (ts.isTypeAliasDeclaration(node)) return membersOf(node.type)
  if (ts.isTypeLiteralNode(node) || ts.isClassDeclaration(node)) return [...node.members]
  return ts.isIntersectionTypeNode(node) || ts.isUnionTypeNode(node) ? node.types.flatMap(membersOf) : []
}
