-- The texts that run beside a command: of the functions that it names, and of the triggers,
-- policies, rules, defaults and checks of the relations that it names.
--   $1, $2  schemas and names, side by side; an empty schema is any
--   $3      what was told before
WITH named AS (
  SELECT DISTINCT w.schema, w.name FROM unnest($1::text[], $2::text[]) w (schema, name)
), relation AS (
  SELECT DISTINCT c.oid FROM named w JOIN pg_class c ON c.relname = w.name JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND n.nspname = w.schema AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
), text (who, text) AS (
  SELECT format('function %s', p.oid::regprocedure), coalesce(pg_get_function_sqlbody(p.oid), p.prosrc)
  FROM named w JOIN pg_proc p ON p.proname = w.name JOIN pg_namespace n ON n.oid = p.pronamespace
  WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND w.schema IN (n.nspname, '')
  UNION ALL
  SELECT format('the trigger %I of %s', t.tgname, t.tgrelid::regclass), coalesce(pg_get_function_sqlbody(p.oid), p.prosrc) || ' ' || coalesce(pg_get_triggerdef(t.oid), '')
  FROM relation r JOIN pg_trigger t ON t.tgrelid = r.oid AND NOT t.tgisinternal JOIN pg_proc p ON p.oid = t.tgfoid
  UNION ALL
  SELECT format('the policy %I of %s', y.polname, y.polrelid::regclass), coalesce(pg_get_expr(y.polqual, y.polrelid), '') || ' ' || coalesce(pg_get_expr(y.polwithcheck, y.polrelid), '')
  FROM relation r JOIN pg_policy y ON y.polrelid = r.oid
  UNION ALL
  SELECT format('the rule or view %s of %s', quote_ident(u.rulename), u.ev_class::regclass), pg_get_ruledef(u.oid)
  FROM relation r JOIN pg_rewrite u ON u.ev_class = r.oid
  UNION ALL
  SELECT format('a default of %s', d.adrelid::regclass), pg_get_expr(d.adbin, d.adrelid)
  FROM relation r JOIN pg_attrdef d ON d.adrelid = r.oid
  UNION ALL
  SELECT format('the constraint %I of %s', k.conname, k.conrelid::regclass), pg_get_constraintdef(k.oid)
  FROM relation r JOIN pg_constraint k ON k.conrelid = r.oid AND k.contype = 'c'
)
SELECT DISTINCT who, text FROM text WHERE text IS NOT NULL AND who <> ALL ($3::text[]) ORDER BY who LIMIT 500
