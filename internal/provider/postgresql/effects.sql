-- What one action on one relation drags along, a row each.
--   $1 schema, $2 relation, $3 SELECT, INSERT, UPDATE or DELETE
--   $4 the columns of the grant, empty for all
--   $5 the sequences that are granted too, as schema.name with both in double quotes
-- says is told; where close is not empty, the caller could make it something else than
-- what was granted, and close would end that.
WITH RECURSIVE target AS (
  SELECT c.*, quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS name, quote_ident(pg_get_userbyid(c.relowner)) AS owner
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1::text AND c.relname = $2::text
), tree AS (
  -- It, and what is reached through it: children, partitions, what a view is made of.
  SELECT t.oid, t.name, t.owner, t.relkind, 'itself' AS reached FROM target t
  UNION
  SELECT c.oid, quote_ident(n.nspname) || '.' || quote_ident(c.relname), quote_ident(pg_get_userbyid(c.relowner)), c.relkind, x.reached
  FROM tree,
  LATERAL (
    SELECT i.inhrelid AS oid, CASE tree.relkind WHEN 'p' THEN 'partition' ELSE 'child' END AS reached FROM pg_inherits i WHERE i.inhparent = tree.oid
    UNION ALL
    SELECT d.refobjid, 'view' FROM pg_rewrite r
    JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> tree.oid
    WHERE r.ev_class = tree.oid AND tree.relkind = 'v'
  ) x
  JOIN pg_class c ON c.oid = x.oid JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'p', 'v', 'f')
), cascade AS (
  SELECT k.conname, k.conrelid, k.confrelid, k.confdeltype AS how_deleted, k.confupdtype AS how_updated, $3::text AS event
  FROM tree JOIN pg_constraint k ON k.confrelid = tree.oid AND k.contype = 'f' AND k.conparentid = 0
  WHERE $3::text = 'DELETE' AND k.confdeltype IN ('c', 'n', 'd')
     OR $3::text = 'UPDATE' AND k.confupdtype IN ('c', 'n', 'd') AND ($4::text[] = '{}' OR EXISTS (
        SELECT FROM pg_attribute a WHERE a.attrelid = k.confrelid AND a.attnum = ANY (k.confkey) AND a.attname = ANY ($4::text[])))
  UNION
  -- From a table whose rows go, it goes on by their going; from one in which they change, by that.
  SELECT k.conname, k.conrelid, k.confrelid, k.confdeltype, k.confupdtype, x.event
  FROM cascade c
  JOIN pg_constraint k ON k.confrelid = c.conrelid AND k.contype = 'f' AND k.conparentid = 0,
  LATERAL (SELECT CASE WHEN c.event = 'DELETE' AND c.how_deleted = 'c' THEN 'DELETE' ELSE 'UPDATE' END AS event) x
  WHERE x.event = 'DELETE' AND k.confdeltype IN ('c', 'n', 'd') OR x.event = 'UPDATE' AND k.confupdtype IN ('c', 'n', 'd')
), fired AS (
  SELECT DISTINCT t.tgname, tree.name AS on_name, p.oid, CASE WHEN p.prosecdef THEN p.proowner END AS runner, p.proconfig, p.prosqlbody IS NOT NULL AS bound
  FROM tree JOIN pg_trigger t ON t.tgrelid = tree.oid JOIN pg_proc p ON p.oid = t.tgfoid
  WHERE NOT t.tgisinternal AND t.tgenabled IN ('O', 'A') AND $3::text <> 'SELECT'
    -- What fires on each partition is named once, on the table itself.
    AND (t.tgparentid = 0 OR tree.reached = 'itself')
    AND t.tgtype & CASE $3::text WHEN 'INSERT' THEN 4 WHEN 'DELETE' THEN 8 ELSE 16 END <> 0
    AND ($3::text <> 'UPDATE' OR tree.reached = 'view' OR $4::text[] = '{}' OR t.tgattr::text = '' OR EXISTS (
         SELECT FROM pg_attribute a WHERE a.attrelid = t.tgrelid AND a.attnum = ANY (t.tgattr::smallint[]) AND a.attname = ANY ($4::text[])))
  UNION
  -- What a foreign key does it does as the owner of its table, and so do the triggers
  -- before it; those after it run as the login.
  SELECT t.tgname, c.conrelid::regclass::text, p.oid, CASE WHEN p.prosecdef THEN p.proowner WHEN t.tgtype & 2 <> 0 THEN r.relowner END, p.proconfig, p.prosqlbody IS NOT NULL
  FROM cascade c JOIN pg_class r ON r.oid = c.conrelid JOIN pg_trigger t ON t.tgrelid = c.conrelid JOIN pg_proc p ON p.oid = t.tgfoid
  WHERE NOT t.tgisinternal AND t.tgenabled IN ('O', 'A')
    AND t.tgtype & CASE WHEN c.event = 'DELETE' AND c.how_deleted = 'c' THEN 8 ELSE 16 END <> 0
), called AS (
  -- Routines in defaults, checks, views and policies: they need EXECUTE of the login's.
  SELECT DISTINCT p.oid, p.oid::regprocedure::text AS routine, CASE WHEN p.prosecdef THEN p.proowner END AS runner, p.proconfig, p.prosqlbody IS NOT NULL AS bound
  FROM tree JOIN pg_class t ON t.oid = tree.oid
  JOIN LATERAL (
    SELECT 'pg_attrdef'::regclass AS class, d.oid AS object FROM pg_attrdef d
      WHERE d.adrelid = t.oid AND tree.reached IN ('itself', 'view') AND ($3::text = 'INSERT' OR $3::text = 'UPDATE' AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = t.oid AND a.attnum = d.adnum AND a.attgenerated <> ''))
    UNION ALL SELECT 'pg_constraint'::regclass, k.oid FROM pg_constraint k WHERE k.conrelid = t.oid AND k.contype = 'c' AND $3::text IN ('INSERT', 'UPDATE')
    UNION ALL SELECT 'pg_rewrite'::regclass, r.oid FROM pg_rewrite r WHERE r.ev_class = t.oid AND t.relkind <> 'm'
    UNION ALL SELECT 'pg_policy'::regclass, y.oid FROM pg_policy y WHERE y.polrelid = t.oid AND t.relrowsecurity
  ) x ON true
  JOIN pg_depend d ON d.classid = x.class AND d.objid = x.object AND d.refclassid = 'pg_proc'::regclass
  JOIN pg_proc p ON p.oid = d.refobjid
  WHERE p.oid >= 16384
), powerful AS (
  SELECT DISTINCT oid, runner FROM (SELECT oid, runner, proconfig, bound FROM fired UNION ALL SELECT oid, runner, proconfig, bound FROM called) x
  WHERE runner IS NOT NULL AND NOT bound AND NOT EXISTS (SELECT FROM unnest(proconfig) s WHERE s LIKE 'search_path=%')
)
SELECT format('%s fires the trigger %I of %s, which runs %s as %s', $3::text, tgname, on_name, oid::regprocedure,
              coalesce(quote_ident(pg_get_userbyid(runner)), 'the login')) AS says, '' AS close
FROM fired
UNION ALL
SELECT format('%s runs %s as %I, which finds what it names by the caller''s search_path', $3::text, oid::regprocedure, pg_get_userbyid(runner)),
       format('ALTER ROUTINE %s SET search_path = …, pg_temp, with the schemas that it means', oid::regprocedure)
FROM powerful
UNION ALL
SELECT format('%s goes on to %s of %s by the foreign key %I of %s, as the owner of that', $3::text,
              CASE CASE WHEN event = 'DELETE' THEN how_deleted ELSE how_updated END
                WHEN 'c' THEN CASE event WHEN 'DELETE' THEN 'deleting the rows' ELSE 'changing the rows' END
                WHEN 'n' THEN 'setting columns to null in the rows' ELSE 'setting columns to their defaults in the rows' END,
              conrelid::regclass, conname, conrelid::regclass), ''
FROM cascade
UNION ALL
SELECT format('the rule %I of %s does more or something else, as %s: %s', r.rulename, t.name, t.owner, pg_get_ruledef(r.oid)), ''
FROM target t JOIN pg_rewrite r ON r.ev_class = t.oid
WHERE r.rulename <> '_RETURN' AND r.ev_enabled IN ('O', 'A')
  AND r.ev_type = CASE $3::text WHEN 'SELECT' THEN '1' WHEN 'UPDATE' THEN '2' WHEN 'INSERT' THEN '3' ELSE '4' END::"char"
UNION ALL
SELECT format('the view %s works on %s as %s', t.name, (
         SELECT string_agg(DISTINCT d.refobjid::regclass::text, ', ') FROM pg_rewrite r JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
           AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> t.oid WHERE r.ev_class = t.oid), t.owner), ''
FROM target t WHERE t.relkind = 'v'
UNION ALL
SELECT format('%s calls %s%s, and needs EXECUTE on it, which is not part of the grant', $3::text, routine,
              coalesce(', which runs as ' || quote_ident(pg_get_userbyid(runner)), '')), ''
FROM called
UNION ALL
SELECT format('%s reaches %s too, which inherits from it and needs no right of its own', $3::text, tree.name), ''
FROM tree WHERE tree.reached = 'child' AND $3::text <> 'INSERT'
UNION ALL
SELECT CASE WHEN count(y.oid) = 0 THEN format('row security is on for %s, and no policy lets a login see or change a row', t.name)
            ELSE format('row security is on for %s: of its rows the login reaches those of %s', t.name, string_agg(quote_ident(y.polname), ', ' ORDER BY y.polname)) END, ''
FROM target t LEFT JOIN pg_policy y ON y.polrelid = t.oid AND 0 = ANY (y.polroles)
WHERE t.relrowsecurity GROUP BY t.name
UNION ALL
SELECT format('the rows of %s are on the foreign server %I, and are reached as its user mapping for PUBLIC says', t.name, s.srvname), ''
FROM tree t JOIN pg_foreign_table f ON f.ftrelid = t.oid JOIN pg_foreign_server s ON s.oid = f.ftserver
UNION ALL
SELECT format('the column %I of %s draws from the sequence %s unless an INSERT gives it a value, and that needs USAGE: name %s in companion_resources', a.attname, t.name, x.name, x.name), ''
FROM tree t
JOIN pg_attrdef d ON d.adrelid = t.oid AND $3::text = 'INSERT' AND t.reached IN ('itself', 'view')
JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = d.adnum
JOIN pg_depend p ON p.classid = 'pg_attrdef'::regclass AND p.objid = d.oid AND p.refclassid = 'pg_class'::regclass
JOIN pg_class s ON s.oid = p.refobjid AND s.relkind = 'S' JOIN pg_namespace n ON n.oid = s.relnamespace,
LATERAL (SELECT quote_ident(n.nspname) || '.' || quote_ident(s.relname) AS name) x
WHERE '"' || replace(n.nspname, '"', '""') || '"."' || replace(s.relname, '"', '""') || '"' <> ALL ($5::text[])
ORDER BY 2 DESC, 1
