-- What keeps a role from being dropped, in this database and in what the server shares:
-- a description, whose it is, and the statement with which a superuser removes it. Where
-- that is a plain REVOKE, the owner can run it, too.
--   $1  the role's name
WITH me AS (
  SELECT oid, quote_ident(rolname) AS name FROM pg_roles WHERE rolname = $1
), found AS (
  SELECT d.classid, d.objid, d.objsubid, d.deptype, d.dbid, me.oid AS role, me.name AS me, i.type, i.identity,
         coalesce((SELECT c.relowner FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid WHERE d.classid = 'pg_policy'::regclass AND p.oid = d.objid),
                  (SELECT o.refobjid FROM pg_shdepend o
                    WHERE o.classid = d.classid AND o.objid = d.objid AND o.dbid = d.dbid AND o.deptype = 'o' LIMIT 1), 10) AS owner, -- the first superuser's is not recorded
         CASE d.classid
           WHEN 'pg_class'::regclass THEN
             CASE WHEN d.objsubid = 0 THEN (SELECT o.relacl FROM pg_class o WHERE o.oid = d.objid)
                  ELSE (SELECT o.attacl FROM pg_attribute o WHERE o.attrelid = d.objid AND o.attnum = d.objsubid) END
           WHEN 'pg_proc'::regclass THEN (SELECT o.proacl FROM pg_proc o WHERE o.oid = d.objid)
           WHEN 'pg_type'::regclass THEN (SELECT o.typacl FROM pg_type o WHERE o.oid = d.objid)
           WHEN 'pg_namespace'::regclass THEN (SELECT o.nspacl FROM pg_namespace o WHERE o.oid = d.objid)
           WHEN 'pg_database'::regclass THEN (SELECT o.datacl FROM pg_database o WHERE o.oid = d.objid)
           WHEN 'pg_language'::regclass THEN (SELECT o.lanacl FROM pg_language o WHERE o.oid = d.objid)
           WHEN 'pg_largeobject'::regclass THEN (SELECT o.lomacl FROM pg_largeobject_metadata o WHERE o.oid = d.objid)
           WHEN 'pg_tablespace'::regclass THEN (SELECT o.spcacl FROM pg_tablespace o WHERE o.oid = d.objid)
           WHEN 'pg_foreign_data_wrapper'::regclass THEN (SELECT o.fdwacl FROM pg_foreign_data_wrapper o WHERE o.oid = d.objid)
           WHEN 'pg_foreign_server'::regclass THEN (SELECT o.srvacl FROM pg_foreign_server o WHERE o.oid = d.objid)
         END AS acl
    FROM pg_shdepend d JOIN me ON d.refclassid = 'pg_authid'::regclass AND d.refobjid = me.oid,
         LATERAL pg_identify_object(d.classid, d.objid, d.objsubid) i
   WHERE d.dbid IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
), removal AS (
  SELECT f.*,
       CASE
         WHEN f.deptype = 'o' AND f.type IN ('database', 'tablespace', 'subscription') -- which DROP OWNED leaves alone
           THEN format('ALTER %s %s OWNER TO CURRENT_USER', upper(f.type), f.identity)
         WHEN f.deptype <> 'a' THEN format('DROP OWNED BY %s CASCADE', f.me)
         WHEN f.type = 'role membership' THEN
                  (SELECT format('REVOKE %I FROM %I GRANTED BY %s CASCADE', pg_get_userbyid(m.roleid), pg_get_userbyid(m.member), f.me) FROM pg_auth_members m
                  WHERE (to_jsonb(m) ->> 'oid')::oid = f.objid) -- 15 has no such column, and no such dependency
         WHEN f.objsubid <> 0 THEN (SELECT format('REVOKE ALL (%I) ON TABLE %s FROM %s CASCADE', t.attname, f.objid::regclass, f.me)
                                      FROM pg_attribute t WHERE t.attrelid = f.objid AND t.attnum = f.objsubid)
         WHEN f.type = 'default acl' THEN regexp_replace(f.identity, '^(.*) on ([a-z ]+)$', 'ALTER DEFAULT PRIVILEGES \1 REVOKE ALL ON \2 FROM ') || f.me
         ELSE format('REVOKE ALL ON %s %s FROM %s CASCADE',
                     CASE f.type WHEN 'view' THEN 'TABLE' WHEN 'materialized view' THEN 'TABLE' WHEN 'foreign table' THEN 'TABLE'
                                 WHEN 'procedure' THEN 'ROUTINE' WHEN 'aggregate' THEN 'ROUTINE' WHEN 'function' THEN 'ROUTINE'
                                 WHEN 'server' THEN 'FOREIGN SERVER' WHEN 'foreign-data wrapper' THEN 'FOREIGN DATA WRAPPER' WHEN 'parameter ACL' THEN 'PARAMETER' ELSE upper(f.type) END,
                     f.identity, f.me)
       END AS statement
    FROM found f
)
SELECT coalesce(pg_describe_object(f.classid, f.objid, f.objsubid), 'an object that is gone') AS what,
       quote_ident(pg_get_userbyid(f.owner)) AS owner,
       -- A grantor's privilege is taken back as that grantor, and a superuser's REVOKE as the owner.
       coalesce((SELECT string_agg(CASE WHEN a.grantor = f.owner THEN f.statement
                                        ELSE format('SET ROLE %I; %s; RESET ROLE', pg_get_userbyid(a.grantor), f.statement) END, '; ' ORDER BY a.grantor <> f.owner, a.grantor)
                   FROM (SELECT DISTINCT x.grantor FROM aclexplode(f.acl) x WHERE x.grantee = f.role) a
                  WHERE f.deptype = 'a'), f.statement) AS statement
  FROM removal f
 ORDER BY f.deptype = 'a', f.classid, f.objid, f.objsubid
