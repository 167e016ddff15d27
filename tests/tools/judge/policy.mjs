// Reads policies and says what of them the simulator would misread. It takes any
// name for an operator, compares seconds with a date as numbers, finds one
// address in 0.0.0.0/0, and so on: all without a word, as "no match".
import { isIP, isIPv4, isIPv6 } from "node:net";

const families = new Map(
  Object.entries({
    String: "Equals NotEquals EqualsIgnoreCase NotEqualsIgnoreCase Like NotLike",
    Numeric: "Equals NotEquals LessThan LessThanEquals GreaterThan GreaterThanEquals",
    Date: "Equals NotEquals LessThan LessThanEquals GreaterThan GreaterThanEquals",
    Arn: "Equals NotEquals Like NotLike",
    Binary: "Equals",
  }).flatMap(([family, operators]) => operators.split(" ").map((operator) => [family + operator, family])),
);
for (const [operator, family] of [["Bool", "Bool"], ["Null", "Null"], ["IpAddress", "IP"], ["NotIpAddress", "IP"]]) {
  families.set(operator, family);
}

const date = /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(?:\.\d+)?(?:Z|[+-]\d{2}:\d{2})$/;
const seconds = /^\d+$/;
const number = /^-?\d+(?:\.\d+)?$/;

const list = (value) => (Array.isArray(value) ? value : [value]);

// A Refusal is what the caller has to mend.
export class Refusal extends Error {}

// readPolicy gives the document, its conditions, and the keys that it has
// variables of.
export function readPolicy(text, isResourcePolicy) {
  let document;
  try {
    document = JSON.parse(text);
  } catch (problem) {
    throw new Refusal(`not JSON: ${problem.message}`);
  }
  const conditions = [];
  const variables = new Set();
  const statements = list(document?.Statement ?? []);
  if (statements.length === 0) throw new Refusal("it has no statement");
  statements.forEach((statement, index) => {
    try {
      for (const resource of [...list(statement.Resource ?? []), ...list(statement.NotResource ?? [])]) {
        checkResource(resource);
        addVariables(variables, resource);
      }
      if (isResourcePolicy) checkPrincipal(statement);
      for (const [operator, keys] of Object.entries(statement.Condition ?? {})) {
        for (const [key, value] of Object.entries(keys)) {
          const condition = readCondition(operator, key, list(value));
          condition.values.forEach((each) => addVariables(variables, each));
          conditions.push(condition);
        }
      }
    } catch (problem) {
      throw new Refusal(`statement ${index + 1}: ${problem.message}`);
    }
  });
  if (variables.size > 0 && document.Version !== "2012-10-17") {
    throw new Refusal('it has variables, which AWS reads in Version "2012-10-17" only');
  }
  return { document, conditions, variables: [...variables] };
}

// A text that is no ARN matches everything in the simulator.
function checkResource(resource) {
  if (resource === "*") return;
  const parts = String(resource).split(":");
  if (parts[0] !== "arn" || parts.length < 6) throw new Refusal(`resource "${resource}" is neither * nor a whole ARN`);
  const [kind] = parts.slice(5).join(":").match(/^[^/:]*(?=[/:])/) ?? [""];
  const isObject = parts[2] === "s3" && parts[3] === "" && parts[4] === "";
  if (!isObject && /[*?]/.test(kind)) throw new Refusal(`resource "${resource}": the wildcard in "${kind}" matches nothing here`);
}

// A statement that names nobody, or a pattern of names, matches nobody.
function checkPrincipal({ Principal: principal, NotPrincipal: exempt }) {
  if (exempt !== undefined) throw new Refusal("NotPrincipal: the simulator spares the sessions of a role that is named");
  if (principal === undefined) throw new Refusal("it has no Principal");
  if (principal === "*") return;
  if (typeof principal !== "object" || principal === null || Object.keys(principal).length === 0) {
    throw new Refusal('Principal is neither "*" nor an object that names somebody');
  }
  for (const name of list(principal.AWS ?? [])) {
    if (name !== "*" && !/^(?:\d{12}|arn:[^:]+:(?:iam|sts)::\d{12}:[^*?]+)$/.test(name)) {
      throw new Refusal(`principal "${name}" is not one that AWS takes`);
    }
  }
}

function readCondition(operator, key, given) {
  const [, name] = operator.match(/^(?:ForAllValues:|ForAnyValue:)?(\w+?)(?:IfExists)?$/) ?? [];
  const family = families.get(name);
  if (!family) throw new Refusal(`"${operator}" is not an operator`);
  if (given.length === 0) throw new Refusal(`${operator} of ${key} has no value`);
  const values = given.map(String);
  for (const value of values) {
    const wrong = problemOf(family, value);
    if (wrong) throw new Refusal(`${operator} of ${key}: "${value}" ${wrong}`);
  }
  return { key: key.toLowerCase(), operator, family, negated: name.includes("Not"), values };
}

// problemOf says what is wrong with a condition's value, if anything.
function problemOf(family, value) {
  switch (family) {
    case "Numeric":
      return number.test(value) ? "" : "is not a number";
    case "Date":
      return date.test(value) || seconds.test(value) ? "" : "is neither a date nor seconds";
    case "Bool":
    case "Null":
      return value === "true" || value === "false" ? "" : "is neither true nor false";
    case "Arn":
      return value.split(":").length >= 6 ? "" : "is not an ARN";
    case "IP": {
      const [address, bits] = value.split("/");
      if (!isIP(address)) return "is not an address";
      if (bits === undefined) return isIPv6(address) ? "is compared as text: write it with /128" : "";
      if (isIPv4(address) && bits === "0") return "holds one address only here";
      return seconds.test(bits) && Number(bits) <= (isIPv4(address) ? 32 : 128) ? "" : "is not a range";
    }
    default:
      return "";
  }
}

// checkValue refuses a value of the request that the simulator can't compare
// with the condition's.
export function checkValue(condition, value) {
  const wrong = mismatchOf(condition, value);
  if (wrong) throw new Refusal(`context ${condition.key}, which ${condition.operator} needs: "${value}" ${wrong}`);
}

function mismatchOf({ family, negated, values }, value) {
  switch (family) {
    case "Null":
      return "";
    case "Date":
      if (values.some((each) => date.test(each) !== date.test(value))) return `is not written as "${values[0]}" is`;
      return problemOf(family, value);
    case "IP":
      if (!isIP(value)) return "is not an address";
      if (!negated || !isIPv6(value) || !values.some(isIPv4)) return "";
      return "is no IPv4 address, and one without a mask is compared as text: write it with /32";
    default:
      return problemOf(family, value);
  }
}

// A variable with a default has a value in any case.
function addVariables(variables, text) {
  for (const [, inside] of String(text).matchAll(/\$\{([^}]*)\}/g)) {
    if (!["*", "?", "$"].includes(inside) && !inside.includes(",")) variables.add(inside.trim().toLowerCase());
  }
}
