-- What PUBLIC has in this database, as far as anybody may change it while logins
-- live: one row a right. It takes no longer than a mint can wait.
--   $1  schemas that the grant itself opens
--   $2  what the grant gives, as ambientScope.Granted
--   $3  roles that the grant is about besides
-- close is the statement that ends a right; covers are the grants that include it. giver
-- is the role that has given it; stops says whether that is more than a stranger's gift
-- of something of his own. Names are qualified, since the session's search_path is
-- pg_catalog.
WITH RECURSIVE opened AS (
  -- Schemas that a minted login can look into: by its grant, or as everybody can.
  -- The system's own count for what was added to them after initdb.
  SELECT n.oid, n.nspname, n.nspname IN ('pg_catalog', 'information_schema') AS system
  FROM pg_namespace n
  WHERE n.nspname = ANY ($1::text[])
     OR n.nspname !~ '^pg_(toast|temp_)'
    AND EXISTS (SELECT FROM aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a
                WHERE a.grantee = 0 AND a.privilege_type = 'USAGE')
), relation AS (
  SELECT c.oid, c.relacl, c.relowner, n.nspname, c.relname, c.relkind
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN opened o ON o.oid = n.oid
  WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND o.oid IS NOT NULL AND (NOT o.system OR c.oid >= 16384)
     -- nextval takes an OID, for which no schema has to be looked into.
     OR c.relkind = 'S' AND n.nspname !~ '^pg_(toast|temp_)'
), creator AS (
  -- Whether a login can make tables, and so triggers on them.
  SELECT EXISTS (SELECT FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
                 WHERE d.datname = current_database() AND a.grantee = 0 AND a.privilege_type IN ('TEMPORARY', 'CREATE'))
      OR EXISTS (SELECT FROM opened o JOIN pg_namespace n ON n.oid = o.oid, aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a
                 WHERE a.grantee = 0 AND a.privilege_type = 'CREATE') AS possible
), routine AS (
  SELECT p.oid::regprocedure::text AS name,
         CASE p.prokind WHEN 'p' THEN 'procedure' ELSE 'function' END AS kind,
         e.extname, o.nspname, p.proowner AS owner,
         CASE WHEN p.prosecdef THEN ' as ' || quote_ident(pg_get_userbyid(p.proowner)) ELSE '' END
         || CASE WHEN NOT l.lanpltrusted AND e.oid IS NULL AND p.prokind <> 'a' THEN ' in untrusted language ' || quote_ident(l.lanname) ELSE '' END AS power
  FROM pg_proc p
  JOIN opened o ON o.oid = p.pronamespace
  JOIN pg_language l ON l.oid = p.prolang
  LEFT JOIN pg_depend x ON x.classid = 'pg_proc'::regclass AND x.objid = p.oid AND x.refclassid = 'pg_extension'::regclass AND x.deptype = 'e'
  LEFT JOIN pg_extension e ON e.oid = x.refobjid
  WHERE (NOT o.system OR p.oid >= 16384)
    AND (p.proacl IS NULL OR EXISTS (SELECT FROM aclexplode(p.proacl) a WHERE a.grantee = 0))
    AND p.prorettype <> 'internal'::regtype
    -- A trigger's function runs by a trigger only, which takes a table of one's own.
    AND (p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype)
         OR p.prosecdef AND p.prorettype = 'trigger'::regtype AND (SELECT possible FROM creator))
), subject AS (
  -- Whose things the grant is about: what these roles, or a superuser, give to
  -- everybody is not a stranger's.
  SELECT n.nspowner AS oid FROM pg_namespace n WHERE n.nspname = ANY ($1::text[])
  UNION SELECT d.datdba FROM pg_database d WHERE d.datname = current_database()
  UNION SELECT r.oid FROM pg_roles r WHERE r.rolsuper OR r.rolname = current_user OR r.rolname = ANY ($3::text[])
  UNION SELECT c.relowner FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
   WHERE n.nspname = ANY ($1::text[])
     AND EXISTS (SELECT FROM unnest($2::text[]) g WHERE starts_with(substr(g, position(' on ' in g) + 4) || '.', '"' || replace(n.nspname, '"', '""') || '"."' || replace(c.relname, '"', '""') || '".'))
  UNION SELECT p.proowner FROM unnest($2::text[]) g JOIN pg_proc p ON p.oid = to_regprocedure(substr(g, length('EXECUTE on ') + 1))
   WHERE starts_with(g, 'EXECUTE on ')
), acting AS (
  -- Whose rights a view or a function gives to those who use it.
  SELECT DISTINCT r.oid AS owner, r.oid AS power FROM pg_roles r
   WHERE r.oid IN (SELECT proowner FROM pg_proc WHERE prosecdef AND oid >= 16384 UNION SELECT relowner FROM pg_class WHERE relkind = 'v' AND oid >= 16384)
     AND r.oid NOT IN (SELECT oid FROM subject)
  UNION SELECT a.owner, m.roleid FROM acting a JOIN pg_auth_members m ON m.member = a.power
), widens AS (
  -- Those of them that can get at something of the grant's own subjects.
  SELECT DISTINCT a.owner FROM acting a
   WHERE a.power IN (SELECT oid FROM subject) OR a.power < 16384
      OR EXISTS (SELECT FROM pg_shdepend d
                  WHERE d.refclassid = 'pg_authid'::regclass AND d.refobjid = a.power AND d.deptype = 'a'
                    AND d.dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND d.classid <> 'pg_namespace'::regclass
                    AND coalesce((SELECT o.refobjid FROM pg_shdepend o
                                   WHERE o.classid = d.classid AND o.objid = d.objid AND o.dbid = d.dbid AND o.deptype = 'o' LIMIT 1), 10) IN (SELECT oid FROM subject))
), open_right AS (
SELECT format('%s on database %I', a.privilege_type, d.datname) AS name,
       format('REVOKE %s ON DATABASE %I FROM PUBLIC', a.privilege_type, d.datname) AS close,
       '{}'::text[] AS covers, d.datdba AS owner, a.grantor, false AS acts
FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
WHERE a.grantee = 0 AND d.datallowconn
  AND CASE WHEN d.datname = current_database() THEN a.privilege_type IN ('TEMPORARY', 'CREATE')
           ELSE a.privilege_type IN ('CONNECT', 'CREATE') END
UNION ALL
SELECT format('CREATE on schema %I', n.nspname), format('REVOKE CREATE ON SCHEMA %I FROM PUBLIC', n.nspname), '{}', n.nspowner, a.grantor, false
FROM pg_namespace n, aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a
WHERE a.grantee = 0 AND a.privilege_type = 'CREATE' AND n.nspname !~ '^pg_(toast|temp_)'
UNION ALL
SELECT format('%s on %s %s', a.privilege_type, x.kind, x.name),
       format('REVOKE %s ON %s %s FROM PUBLIC', a.privilege_type, upper(x.kind), x.name),
       ARRAY[a.privilege_type || ' on ' || x.quoted], c.relowner, a.grantor, c.relkind = 'v'
FROM relation c, aclexplode(c.relacl) a,
LATERAL (SELECT CASE c.relkind WHEN 'S' THEN 'sequence' ELSE 'table' END AS kind, c.oid::regclass::text AS name,
                '"' || replace(c.nspname, '"', '""') || '"."' || replace(c.relname, '"', '""') || '"' AS quoted) x
WHERE c.relacl IS NOT NULL AND a.grantee = 0
UNION ALL
SELECT format('%s on column %s(%I)', a.privilege_type, c.oid::regclass, t.attname),
       format('REVOKE %s (%I) ON %s FROM PUBLIC', a.privilege_type, t.attname, c.oid::regclass),
       ARRAY[a.privilege_type || ' on ' || x.quoted, a.privilege_type || ' on ' || x.quoted || '."' || replace(t.attname, '"', '""') || '"'], c.relowner, a.grantor, c.relkind = 'v'
FROM pg_attribute t JOIN relation c ON t.attrelid = c.oid, aclexplode(t.attacl) a,
LATERAL (SELECT '"' || replace(c.nspname, '"', '""') || '"."' || replace(c.relname, '"', '""') || '"' AS quoted) x
WHERE t.attacl IS NOT NULL AND NOT t.attisdropped AND a.grantee = 0
UNION ALL
SELECT format('EXECUTE on %s %s', kind, name) || power,
       format('REVOKE EXECUTE ON %s %s FROM PUBLIC', upper(kind), name),
       ARRAY['EXECUTE on ' || name], owner, owner, power <> ''
FROM routine WHERE extname IS NULL OR power <> ''
UNION ALL
-- Dozens at a time, and no one's in particular: an extension is one right.
SELECT format('EXECUTE on functions of extension %I in schema %I', extname, nspname),
       format('REVOKE EXECUTE ON ROUTINE %s FROM PUBLIC', string_agg(name, ', ' ORDER BY name)), '{}', owner, owner, false
FROM routine WHERE extname IS NOT NULL AND power = '' GROUP BY extname, nspname, owner
UNION ALL
SELECT format('%s on large objects', a.privilege_type),
       format('REVOKE %s ON LARGE OBJECT %s FROM PUBLIC', a.privilege_type, string_agg(m.oid::text, ', ' ORDER BY m.oid)), '{}', m.lomowner, a.grantor, false
FROM pg_largeobject_metadata m, aclexplode(m.lomacl) a
WHERE m.lomacl IS NOT NULL AND a.grantee = 0
GROUP BY a.privilege_type, m.lomowner, a.grantor
UNION ALL
SELECT format('%s on parameter %I', a.privilege_type, q.parname), format('REVOKE %s ON PARAMETER %I FROM PUBLIC', a.privilege_type, q.parname), '{}', 10, a.grantor, false
FROM pg_parameter_acl q, aclexplode(q.paracl) a WHERE a.grantee = 0
)
SELECT f.name, f.close, f.covers, quote_ident(pg_get_userbyid(f.owner)) AS giver,
       f.owner IN (SELECT oid FROM subject) OR f.grantor IN (SELECT oid FROM subject) OR f.acts AND f.owner IN (SELECT owner FROM widens) AS stops
  FROM open_right f
