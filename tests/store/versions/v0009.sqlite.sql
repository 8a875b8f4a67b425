BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0009');
CREATE TABLE answers (
	comparison BIGINT NOT NULL, 
	place BIGINT NOT NULL, 
	entry BIGINT NOT NULL, 
	sample BIGINT NOT NULL, 
	prompt BIGINT, 
	model TEXT NOT NULL, 
	label TEXT NOT NULL, 
	provider TEXT, 
	upstream_model TEXT, 
	finish_reason TEXT, 
	kind TEXT, 
	code TEXT, 
	upstream_status BIGINT, 
	input_tokens BIGINT, 
	output_tokens BIGINT, 
	cached_tokens BIGINT, 
	cost_usd DOUBLE, 
	cost_source TEXT, 
	queued_ms BIGINT NOT NULL, 
	ttft_ms BIGINT, 
	call_ms BIGINT, 
	total_ms BIGINT NOT NULL, 
	attempts BIGINT NOT NULL, 
	said TEXT, 
	said_digest BLOB, 
	is_member BOOLEAN, 
	fusion TEXT, 
	CONSTRAINT answers_key PRIMARY KEY (comparison, place)
)
 WITHOUT ROWID

;
INSERT INTO "answers" VALUES(1838912880887882793,0,0,0,NULL,'local/ngram-3','local/ngram-3','local','ngram-3','length',NULL,NULL,NULL,3,8,0,0.0,'providers.json',0,NULL,73,73,1,'{"text":" executed in the group. This can be"}',NULL,0,NULL);
INSERT INTO "answers" VALUES(1838912880887882793,1,1,0,NULL,'local/ngram-5','local/ngram-5','local','ngram-5','length',NULL,NULL,NULL,3,8,0,0.0,'providers.json',0,NULL,43,73,1,'{"text":" guarantees that if the __enter__() method returns"}',NULL,0,NULL);
INSERT INTO "answers" VALUES(1838912881010790442,0,0,0,NULL,'local/ngram-2','local/ngram-2','local','ngram-2','length',NULL,NULL,NULL,3,8,0,0.0,'providers.json',0,NULL,9,9,1,'{"text":" requested by s * must be defined."}',NULL,0,NULL);
INSERT INTO "answers" VALUES(1838912881010790442,1,1,0,NULL,'nobody','nobody',NULL,NULL,'error','not_found','model_not_found',NULL,NULL,NULL,NULL,NULL,NULL,0,NULL,NULL,9,0,'{"text":"","message":"unknown model `nobody`; `GET /v1/models` lists what is known"}',NULL,0,NULL);
INSERT INTO "answers" VALUES(1838912881062598699,0,0,0,NULL,'local/ngram-5','fusion(local/ngram-2, local/ngram-3 by local/ngram-5)','local','ngram-5','length',NULL,NULL,NULL,181,8,0,0.0,'providers.json',0,NULL,1,24,1,'{"text":" requested by setting f_trace_opcodes to True. Note"}',NULL,0,'{"of":[1,2],"members":[{"entry":1,"index":1,"label":"local/ngram-2","left_out":null},{"entry":2,"index":2,"label":"local/ngram-3","left_out":null}],"prompt":"1","cost_usd":0.0,"cost_unknown":0}');
INSERT INTO "answers" VALUES(1838912881062598699,1,1,0,NULL,'local/ngram-2','local/ngram-2','local','ngram-2','length',NULL,NULL,NULL,2,8,0,0.0,'providers.json',0,NULL,22,22,1,'{"text":" If no arguments are more easily recognized already"}',NULL,1,NULL);
INSERT INTO "answers" VALUES(1838912881062598699,2,2,0,NULL,'local/ngram-3','local/ngram-3','local','ngram-3','length',NULL,NULL,NULL,2,8,0,0.0,'providers.json',0,NULL,21,22,1,'{"text":" has a lookup chain starting with a.__dict__[''"}',NULL,1,NULL);
CREATE TABLE attempts (
	job BIGINT NOT NULL, 
	item BIGINT NOT NULL, 
	entry BIGINT NOT NULL, 
	repeat BIGINT NOT NULL, 
	attempt BIGINT NOT NULL, 
	epoch BIGINT NOT NULL, 
	started DOUBLE NOT NULL, 
	CONSTRAINT attempts_key PRIMARY KEY (job, item, entry, repeat, attempt)
)
 WITHOUT ROWID

;
INSERT INTO "attempts" VALUES(1,0,0,0,1,803185162,1.79581336130781674381e+09);
INSERT INTO "attempts" VALUES(1,0,1,0,1,803185162,1.79581336130787086492e+09);
INSERT INTO "attempts" VALUES(1,1,0,0,1,803185162,1.79581336146199941629e+09);
INSERT INTO "attempts" VALUES(1,1,1,0,1,803185162,1.79581336146204590797e+09);
INSERT INTO "attempts" VALUES(2,0,0,0,1,1210991136,1.79581336536692976954e+09);
CREATE TABLE batches (
	id TEXT NOT NULL, 
	created DOUBLE NOT NULL, 
	account_id TEXT NOT NULL, 
	request TEXT NOT NULL, 
	validated DOUBLE, 
	errors TEXT, 
	cancelling DOUBLE, 
	settled DOUBLE, 
	output_file TEXT, 
	error_file TEXT, 
	PRIMARY KEY (id)
);
INSERT INTO "batches" VALUES('batch_cdcbb9cf9c2e4b5189d40ad4a0f76aa4',1.7958133652932159901e+09,'','{"input_file_id":"file-056f7f00d6c54e2892a43c343f119131","endpoint":"/v1/chat/completions","completion_window":"24h"}',1.7958133653295419216e+09,NULL,NULL,1.79581336640992426868e+09,'file-cdcbb9cf9c2e4b5189d40ad4a0f76aa4-output',NULL);
CREATE TABLE call_times (
	period BIGINT NOT NULL, 
	account_id TEXT NOT NULL, 
	provider TEXT NOT NULL, 
	figure TEXT NOT NULL, 
	step BIGINT NOT NULL, 
	calls BIGINT NOT NULL, 
	CONSTRAINT call_times_key PRIMARY KEY (period, account_id, provider, figure, step)
)
 WITHOUT ROWID

;
INSERT INTO "call_times" VALUES(1795813200,'','local','answer',0,3);
INSERT INTO "call_times" VALUES(1795813200,'','local','answer',2,1);
INSERT INTO "call_times" VALUES(1795813200,'','local','answer',5,1);
INSERT INTO "call_times" VALUES(1795813200,'','local','answer',16,1);
INSERT INTO "call_times" VALUES(1795813200,'','local','answer',22,1);
INSERT INTO "call_times" VALUES(1795813200,'','local','answer',23,1);
INSERT INTO "call_times" VALUES(1795813200,'','local','answer',27,1);
INSERT INTO "call_times" VALUES(1795813200,'','local','answer',31,1);
INSERT INTO "call_times" VALUES(1795813200,'','local','answer',32,1);
INSERT INTO "call_times" VALUES(1795813200,'','local','wait',0,11);
CREATE TABLE comparison_metadata (
	comparison BIGINT NOT NULL, 
	name TEXT NOT NULL, 
	value TEXT NOT NULL, 
	CONSTRAINT comparison_metadata_key PRIMARY KEY (comparison, name)
)
 WITHOUT ROWID

;
INSERT INTO "comparison_metadata" VALUES(1838912880887882793,'team','blue');
CREATE TABLE comparisons (
	number INTEGER NOT NULL, 
	id TEXT NOT NULL, 
	created DOUBLE NOT NULL, 
	account_id TEXT NOT NULL, 
	request_id TEXT NOT NULL, 
	path TEXT NOT NULL, 
	stream BOOLEAN NOT NULL, 
	status BIGINT NOT NULL, 
	answered BIGINT NOT NULL, 
	failed BIGINT NOT NULL, 
	input_tokens BIGINT, 
	output_tokens BIGINT, 
	cached_tokens BIGINT, 
	unknown_usage BIGINT NOT NULL, 
	cost_usd DOUBLE, 
	cost_unknown BIGINT NOT NULL, 
	cache_write_tokens BIGINT, 
	reasoning_tokens BIGINT, 
	total_ms BIGINT NOT NULL, 
	overhead_ms BIGINT NOT NULL, 
	digest BLOB NOT NULL, 
	request TEXT, 
	request_digest BLOB, 
	PRIMARY KEY (number), 
	UNIQUE (id)
);
INSERT INTO "comparisons" VALUES(1838912880887882793,'2b7efc12-eb4e-4a48-98c2-a142451f0c40',1.79581336024207329753e+09,'','f33d886a-651d-4df5-8f7e-7f6934429319','/v1/completion',0,200,2,0,6,16,0,0,0.0,0,0,0,75,1,X'FD888D345428D00FFE3955802104A8210C3DE7CA0B644A646534571032CDB101','{"model": ["local/ngram-3", "local/ngram-5"], "prompt": "The with statement", "max_tokens": 8, "seed": 1, "metadata": {"team": "blue"}}',NULL);
INSERT INTO "comparisons" VALUES(1838912881010790442,'1e92f31f-6f5d-431a-922c-c368d5179c46',1.79581336036210012429e+09,'','57e1796d-175a-4672-a43d-599350aeebe7','/v1/completion',0,200,1,1,3,8,0,0,0.0,0,0,0,49,40,X'1CAAFAD853D5BB099BF39628392C1701E46F1B25C53F930BBE4F6A2191F3A5C9','{"model": ["local/ngram-2", "nobody"], "prompt": "A class \u00e9", "max_tokens": 8, "seed": 1}',NULL);
INSERT INTO "comparisons" VALUES(1838912881062598699,'d31fe8b2-9861-44cd-ba5b-08bf651ca135',1.79581336041269397731e+09,'','b65dfd85-3f7a-4365-b74a-6cd232223517','/v1/completion',0,200,3,0,185,24,0,0,0.0,0,0,0,30,7,X'BD68E7F14E50DCDBD2BEDFCA7656D252FC3E5BA4CA83F4FD437AC9767E7BF75F','{"model": ["fusion(local/ngram-2, local/ngram-3 by local/ngram-5)"], "prompt": "A class", "max_tokens": 8, "seed": 1}',NULL);
CREATE TABLE failures (
	job BIGINT NOT NULL, 
	item BIGINT NOT NULL, 
	entry BIGINT NOT NULL, 
	repeat BIGINT NOT NULL, 
	attempt BIGINT NOT NULL, 
	ended DOUBLE NOT NULL, 
	kind TEXT NOT NULL, 
	failure TEXT NOT NULL, 
	CONSTRAINT failures_key PRIMARY KEY (job, item, entry, repeat, attempt)
)
 WITHOUT ROWID

;
CREATE TABLE file_parts (
	file TEXT NOT NULL, 
	part BIGINT NOT NULL, 
	bytes BLOB NOT NULL, 
	CONSTRAINT file_parts_key PRIMARY KEY (file, part)
);
INSERT INTO "file_parts" VALUES('file-056f7f00d6c54e2892a43c343f119131',0,X'7B22637573746F6D5F6964223A20226F6E65222C20226D6574686F64223A2022504F5354222C202275726C223A20222F76312F636861742F636F6D706C6574696F6E73222C2022626F6479223A207B226D6F64656C223A20226C6F63616C2F6E6772616D2D33222C20226D65737361676573223A205B7B22726F6C65223A202275736572222C2022636F6E74656E74223A20226869227D5D2C20226D61785F746F6B656E73223A20342C202273656564223A20317D7D');
CREATE TABLE files (
	id TEXT NOT NULL, 
	created DOUBLE NOT NULL, 
	account_id TEXT NOT NULL, 
	filename TEXT NOT NULL, 
	purpose TEXT NOT NULL, 
	bytes BIGINT NOT NULL, 
	job TEXT, 
	expires DOUBLE, 
	PRIMARY KEY (id)
);
INSERT INTO "files" VALUES('file-056f7f00d6c54e2892a43c343f119131',1.79581336524448394774e+09,'','lines.jsonl','batch',182,NULL,NULL);
INSERT INTO "files" VALUES('file-cdcbb9cf9c2e4b5189d40ad4a0f76aa4-output',1.79581336640198588371e+09,'','batch_cdcbb9cf9c2e4b5189d40ad4a0f76aa4_output.jsonl','batch_output',1379,'batch_cdcbb9cf9c2e4b5189d40ad4a0f76aa4',NULL);
CREATE TABLE history_texts (
	digest BLOB NOT NULL, 
	text TEXT NOT NULL, 
	day BIGINT NOT NULL, 
	PRIMARY KEY (digest)
);
CREATE TABLE idempotent_answers (
	scope BLOB NOT NULL, 
	created DOUBLE NOT NULL, 
	fingerprint BLOB NOT NULL, 
	status BIGINT NOT NULL, 
	headers TEXT NOT NULL, 
	body BLOB NOT NULL, 
	PRIMARY KEY (scope)
);
INSERT INTO "idempotent_answers" VALUES(X'CA8323FA2312E69A73EFBDEB7D83DF386BF3584A29912E8A066CF027F974039C',1.79581336037263560295e+09,X'1CAAFAD853D5BB099BF39628392C1701E46F1B25C53F930BBE4F6A2191F3A5C9',200,'{"Content-Type":"application/json","x-comparison-id":"1e92f31f-6f5d-431a-922c-c368d5179c46"}',X'7B226964223A2231653932663331662D366635642D343331612D393232632D633336386435313739633436222C226F626A656374223A22746578745F636F6D706C6574696F6E222C2263726561746564223A22323032362D31312D32375432313A30323A34302E3336325A222C2263686F69636573223A5B7B22696E646578223A302C22656E747279223A302C2273616D706C65223A302C226D6F64656C223A226C6F63616C2F6E6772616D2D32222C226C6162656C223A226C6F63616C2F6E6772616D2D32222C2274657874223A22207265717565737465642062792073202A206D75737420626520646566696E65642E222C2263726561746564223A313739353831333336302C226C6F6770726F6273223A6E756C6C2C2266696E6973685F726561736F6E223A226C656E677468222C226E61746976655F66696E6973685F726561736F6E223A6E756C6C2C227573616765223A7B2270726F6D70745F746F6B656E73223A332C22636F6D706C6574696F6E5F746F6B656E73223A382C22746F74616C5F746F6B656E73223A31312C226361636865645F746F6B656E73223A302C2270726564696374696F6E5F74696D655F6D73223A397D2C2270726F7669646572223A226C6F63616C222C22757073747265616D5F6D6F64656C223A226E6772616D2D32222C2274696D696E67223A7B227175657565645F6D73223A302C22747466745F6D73223A6E756C6C2C22746F74616C5F6D73223A392C22617474656D707473223A312C22746F6B656E735F7065725F7365636F6E64223A3837342E327D2C22636F73745F757364223A302E302C22636F73745F736F75726365223A2270726F7669646572732E6A736F6E222C2269676E6F7265645F706172616D6574657273223A5B5D2C2261646A75737465645F706172616D6574657273223A7B7D2C226572726F72223A6E756C6C7D2C7B22696E646578223A312C22656E747279223A312C2273616D706C65223A302C226D6F64656C223A226E6F626F6479222C226C6162656C223A226E6F626F6479222C2274657874223A22222C2263726561746564223A313739353831333336302C226C6F6770726F6273223A6E756C6C2C2266696E6973685F726561736F6E223A226572726F72222C226E61746976655F66696E6973685F726561736F6E223A6E756C6C2C227573616765223A7B2270726F6D70745F746F6B656E73223A6E756C6C2C22636F6D706C6574696F6E5F746F6B656E73223A6E756C6C2C22746F74616C5F746F6B656E73223A6E756C6C2C226361636865645F746F6B656E73223A6E756C6C2C2270726564696374696F6E5F74696D655F6D73223A6E756C6C7D2C2270726F7669646572223A6E756C6C2C22757073747265616D5F6D6F64656C223A6E756C6C2C2274696D696E67223A7B227175657565645F6D73223A302C22747466745F6D73223A6E756C6C2C22746F74616C5F6D73223A392C22617474656D707473223A302C22746F6B656E735F7065725F7365636F6E64223A6E756C6C7D2C22636F73745F757364223A6E756C6C2C22636F73745F736F75726365223A6E756C6C2C2269676E6F7265645F706172616D6574657273223A5B5D2C2261646A75737465645F706172616D6574657273223A7B7D2C226572726F72223A7B226D657373616765223A22756E6B6E6F776E206D6F64656C20606E6F626F6479603B2060474554202F76312F6D6F64656C7360206C697374732077686174206973206B6E6F776E222C2274797065223A22696E76616C69645F726571756573745F6572726F72222C22706172616D223A226D6F64656C222C22636F6465223A226D6F64656C5F6E6F745F666F756E64222C226B696E64223A226E6F745F666F756E64227D7D5D2C227573616765223A7B2270726F6D70745F746F6B656E73223A332C22636F6D706C6574696F6E5F746F6B656E73223A382C22746F74616C5F746F6B656E73223A31312C226361636865645F746F6B656E73223A302C2270726564696374696F6E5F74696D655F6D73223A31302C22756E6B6E6F776E223A307D2C22636F73745F757364223A302E302C22636F73745F756E6B6E6F776E223A302C2274696D696E67223A7B22746F74616C5F6D73223A31302C226F766572686561645F6D73223A317D2C226D65746164617461223A7B7D7D');
CREATE TABLE items (
	job BIGINT NOT NULL, 
	item BIGINT NOT NULL, 
	line BIGINT NOT NULL, 
	custom_id TEXT, 
	body TEXT, 
	digest BLOB, 
	CONSTRAINT items_key PRIMARY KEY (job, item)
);
INSERT INTO "items" VALUES(1,0,1,NULL,'{"prompt":"The return statement","reference":"may only occur"}',NULL);
INSERT INTO "items" VALUES(1,1,2,'b','{"prompt":"The break statement","reference":"may only occur"}',NULL);
INSERT INTO "items" VALUES(2,0,1,'one','{"model":"local/ngram-3","messages":[{"role":"user","content":"hi"}],"max_tokens":4,"seed":1}',NULL);
CREATE TABLE job_counts (
	job BIGINT NOT NULL, 
	model TEXT NOT NULL, 
	result TEXT NOT NULL, 
	calls BIGINT NOT NULL, 
	attempts BIGINT NOT NULL, 
	input_tokens BIGINT, 
	output_tokens BIGINT, 
	cached_tokens BIGINT, 
	unknown_usage BIGINT NOT NULL, 
	cost_usd DOUBLE, 
	cost_unknown BIGINT NOT NULL, 
	total_ms BIGINT NOT NULL, 
	CONSTRAINT job_counts_key PRIMARY KEY (job, model, result)
)
 WITHOUT ROWID

;
INSERT INTO "job_counts" VALUES(1,'local/ngram-3','answered',2,2,6,16,0,0,0.0,0,88);
INSERT INTO "job_counts" VALUES(1,'local/ngram-5','answered',2,2,6,16,0,0,0.0,0,2);
INSERT INTO "job_counts" VALUES(2,'local/ngram-3','answered',1,1,1,4,0,0,0.0,0,0);
CREATE TABLE jobs (
	number INTEGER NOT NULL, 
	id TEXT NOT NULL, 
	created DOUBLE NOT NULL, 
	account_id TEXT NOT NULL, 
	spec TEXT NOT NULL, 
	fingerprint TEXT NOT NULL, 
	state TEXT NOT NULL, 
	reason TEXT, 
	items BIGINT NOT NULL, 
	units BIGINT NOT NULL, 
	started DOUBLE, 
	ended DOUBLE, 
	rate DOUBLE, 
	owner TEXT, 
	lease_until DOUBLE, 
	epoch BIGINT NOT NULL, 
	forked_from TEXT, 
	PRIMARY KEY (number), 
	UNIQUE (id)
);
INSERT INTO "jobs" VALUES(1,'job_f3110b7bd57b4366aa1e5afe07b2ba49',1.79581336086151790616e+09,'','{"models":[{"model":"local/ngram-3"},{"model":"local/ngram-5"}],"parameters":{"max_tokens":8,"seed":1},"scorers":[{"type":"rouge_l"}],"name":"an old job","unattended":true}','{"0: local/ngram-3":{"model":"local/ngram-3","provider":"local","adapter":"ngram","base_url":null,"upstream_model":"ngram-3","kind":"both","limit_group":null,"sent":{"max_tokens":8,"seed":1},"ignored":[]},"1: local/ngram-5":{"model":"local/ngram-5","provider":"local","adapter":"ngram","base_url":null,"upstream_model":"ngram-5","kind":"both","limit_group":null,"sent":{"max_tokens":8,"seed":1},"ignored":[]}}','done',NULL,2,4,1.79581336118949913983e+09,1.79581336513442659376e+09,NULL,NULL,75367.433674293,803185162,NULL);
INSERT INTO "jobs" VALUES(2,'batch_cdcbb9cf9c2e4b5189d40ad4a0f76aa4',1.7958133653059194088e+09,'','{"kind":"requests","endpoint":"/v1/chat/completions","deadline":1795899765.293216,"input":{"name":"lines.jsonl","file":"file-056f7f00d6c54e2892a43c343f119131"},"unattended":true,"window":"24h"}','{"local/ngram-3":{"model":"local/ngram-3","provider":"local","adapter":"ngram","base_url":null,"upstream_model":"ngram-3","kind":"both","limit_group":null}}','done',NULL,1,1,1.79581336534074592591e+09,1.79581336537757039074e+09,NULL,NULL,75368.510670092,1210991136,NULL);
CREATE TABLE scorers (
	job BIGINT NOT NULL, 
	scorer BIGINT NOT NULL, 
	label TEXT NOT NULL, 
	version TEXT NOT NULL, 
	declaration TEXT NOT NULL, 
	is_bounded BOOLEAN NOT NULL, 
	is_higher_better BOOLEAN NOT NULL, 
	declared DOUBLE NOT NULL, 
	CONSTRAINT scorers_key PRIMARY KEY (job, scorer), 
	CONSTRAINT scorers_version UNIQUE (job, label, version)
);
INSERT INTO "scorers" VALUES(1,1,'rouge_l','rouge_l/1/44136fa355b3','{"type":"rouge_l"}',1,1,1.79581336115390849113e+09);
CREATE TABLE scores (
	job BIGINT NOT NULL, 
	item BIGINT NOT NULL, 
	entry BIGINT NOT NULL, 
	repeat BIGINT NOT NULL, 
	scorer BIGINT NOT NULL, 
	value DOUBLE, 
	explanation TEXT, 
	CONSTRAINT scores_key PRIMARY KEY (job, item, entry, repeat, scorer)
)
 WITHOUT ROWID

;
INSERT INTO "scores" VALUES(1,0,0,0,1,0.0,NULL);
INSERT INTO "scores" VALUES(1,0,1,0,1,0.0,NULL);
INSERT INTO "scores" VALUES(1,1,0,0,1,0.0,NULL);
INSERT INTO "scores" VALUES(1,1,1,0,1,0.0,NULL);
CREATE TABLE texts (
	digest BLOB NOT NULL, 
	text TEXT NOT NULL, 
	PRIMARY KEY (digest)
);
CREATE TABLE units (
	job BIGINT NOT NULL, 
	item BIGINT NOT NULL, 
	entry BIGINT NOT NULL, 
	repeat BIGINT NOT NULL, 
	state TEXT NOT NULL, 
	attempt BIGINT NOT NULL, 
	ended DOUBLE NOT NULL, 
	model TEXT NOT NULL, 
	result TEXT NOT NULL, 
	input_tokens BIGINT, 
	output_tokens BIGINT, 
	cached_tokens BIGINT, 
	cost_usd DOUBLE, 
	total_ms BIGINT NOT NULL, 
	answer BLOB, 
	record TEXT, 
	digest BLOB, 
	cache_key BLOB, 
	cached_from TEXT, 
	CONSTRAINT units_key PRIMARY KEY (job, item, entry, repeat)
);
INSERT INTO "units" VALUES(1,0,1,0,'done',1,1.79581336132431459429e+09,'local/ngram-5','answered',3,8,0,0.0,2,X'696353B14A69F004FA24434590AEBA71','{"model":"local/ngram-5","label":"local/ngram-5","provider":"local","upstream_model":"ngram-5","completion":{"choices":[{"message":{"text":" with a finally clause, that finally clause"},"finish_reason":"length"}],"usage":{"input_tokens":3,"output_tokens":8,"cached_input_tokens":0,"cache_write_tokens":0,"reasoning_tokens":0},"model":"ngram-5","system_fingerprint":"pydoc-3.11.7-faa1cf06"},"timing":{"queued_s":0.000015596000594086945,"call_s":0.001954271996510215,"total_s":0.002021616994170472,"attempts":1},"cost":{"usd":0.0,"source":"providers.json"}}',NULL,NULL,NULL);
INSERT INTO "units" VALUES(1,0,0,0,'done',1,1.79581336140848970414e+09,'local/ngram-3','answered',3,8,0,0.0,87,X'F02183F15FA8DE92A5D739CDF2F93CC2','{"model":"local/ngram-3","label":"local/ngram-3","provider":"local","upstream_model":"ngram-3","completion":{"choices":[{"message":{"text":" with a numeric value of a try statement"},"finish_reason":"length"}],"usage":{"input_tokens":3,"output_tokens":8,"cached_input_tokens":0,"cache_write_tokens":0,"reasoning_tokens":0},"model":"ngram-3","system_fingerprint":"pydoc-3.11.7-faa1cf06"},"timing":{"queued_s":0.0000490120000904426,"call_s":0.08681701100431383,"total_s":0.0869359790085582,"attempts":1},"cost":{"usd":0.0,"source":"providers.json"}}',NULL,NULL,NULL);
INSERT INTO "units" VALUES(1,1,1,0,'done',1,1.79581336152235770224e+09,'local/ngram-5','answered',3,8,0,0.0,0,X'696353B14A69F004FA24434590AEBA71','{"model":"local/ngram-5","label":"local/ngram-5","provider":"local","upstream_model":"ngram-5","completion":{"choices":[{"message":{"text":" with a finally clause, that finally clause"},"finish_reason":"length"}],"usage":{"input_tokens":3,"output_tokens":8,"cached_input_tokens":0,"cache_write_tokens":0,"reasoning_tokens":0},"model":"ngram-5","system_fingerprint":"pydoc-3.11.7-faa1cf06"},"timing":{"queued_s":7.151989848352969e-6,"call_s":0.00020789600966963917,"total_s":0.00025192399334628135,"attempts":1},"cost":{"usd":0.0,"source":"providers.json"}}',NULL,NULL,NULL);
INSERT INTO "units" VALUES(1,1,0,0,'done',1,1.79581336152259802814e+09,'local/ngram-3','answered',3,8,0,0.0,1,X'F02183F15FA8DE92A5D739CDF2F93CC2','{"model":"local/ngram-3","label":"local/ngram-3","provider":"local","upstream_model":"ngram-3","completion":{"choices":[{"message":{"text":" with a numeric value of a try statement"},"finish_reason":"length"}],"usage":{"input_tokens":3,"output_tokens":8,"cached_input_tokens":0,"cache_write_tokens":0,"reasoning_tokens":0},"model":"ngram-3","system_fingerprint":"pydoc-3.11.7-faa1cf06"},"timing":{"queued_s":0.00002340800710953772,"call_s":0.0011617439886322245,"total_s":0.0012033329985570163,"attempts":1},"cost":{"usd":0.0,"source":"providers.json"}}',NULL,NULL,NULL);
INSERT INTO "units" VALUES(2,0,0,0,'done',1,1.79581336537271285059e+09,'local/ngram-3','answered',1,4,0,0.0,0,X'D11B8D9BEA1D6593383AADA09DFB5D1D','{"model":"local/ngram-3","label":"local/ngram-3","provider":"local","upstream_model":"ngram-3","completion":{"choices":[{"message":{"text":" requested by setting f_trace_lines"},"finish_reason":"length"}],"usage":{"input_tokens":1,"output_tokens":4,"cached_input_tokens":0,"cache_write_tokens":0,"reasoning_tokens":0},"model":"ngram-3","system_fingerprint":"pydoc-3.11.7-faa1cf06"},"timing":{"queued_s":0.000020320992916822433,"call_s":0.0002822499955072999,"total_s":0.00034273699566256255,"attempts":1},"cost":{"usd":0.0,"source":"providers.json"}}',NULL,NULL,NULL);
CREATE TABLE usage (
	minute BIGINT NOT NULL, 
	account_id TEXT NOT NULL, 
	model TEXT NOT NULL, 
	provider TEXT NOT NULL, 
	upstream_model TEXT NOT NULL, 
	result TEXT NOT NULL, 
	calls BIGINT NOT NULL, 
	input_tokens BIGINT, 
	output_tokens BIGINT, 
	cached_tokens BIGINT, 
	unknown_usage BIGINT NOT NULL, 
	cost_usd DOUBLE, 
	cost_unknown BIGINT NOT NULL, 
	CONSTRAINT usage_key PRIMARY KEY (minute, account_id, model, provider, upstream_model, result)
)
 WITHOUT ROWID

;
INSERT INTO "usage" VALUES(1795813320,'','','','','not_found',1,NULL,NULL,NULL,0,NULL,0);
INSERT INTO "usage" VALUES(1795813320,'','local/ngram-2','local','ngram-2','answered',2,5,16,0,0,0.0,0);
INSERT INTO "usage" VALUES(1795813320,'','local/ngram-3','local','ngram-3','answered',5,12,36,0,0,0.0,0);
INSERT INTO "usage" VALUES(1795813320,'','local/ngram-5','local','ngram-5','answered',4,190,32,0,0,0.0,0);
CREATE TABLE votes (
	number INTEGER NOT NULL, 
	id TEXT NOT NULL, 
	drawn DOUBLE NOT NULL, 
	account_id TEXT NOT NULL, 
	rater TEXT NOT NULL, 
	kind TEXT NOT NULL, 
	job_id TEXT, 
	comparison_id TEXT, 
	item BIGINT NOT NULL, 
	entry_a BIGINT NOT NULL, 
	repeat_a BIGINT NOT NULL, 
	model_a TEXT NOT NULL, 
	entry_b BIGINT, 
	repeat_b BIGINT, 
	model_b TEXT, 
	voted DOUBLE, 
	choice TEXT, 
	score DOUBLE, 
	PRIMARY KEY (number), 
	UNIQUE (id)
);
INSERT INTO "votes" VALUES(1,'ballot_b4530a0e78b34d76ac7dc7a76c7d03ed',1.79581336662777352338e+09,'','','pair','job_f3110b7bd57b4366aa1e5afe07b2ba49',NULL,0,1,0,'local/ngram-5',0,0,'local/ngram-3',1.79581336664837145807e+09,'a',NULL);
CREATE INDEX units_cache ON units (cache_key) WHERE cache_key IS NOT NULL;
CREATE INDEX batches_unsettled ON batches (created) WHERE settled IS NULL;
CREATE INDEX files_created ON files (created, id);
CREATE INDEX comparisons_account ON comparisons (account_id, number);
CREATE INDEX comparisons_failed ON comparisons (number) WHERE failed > 0;
CREATE INDEX answers_label ON answers (label, comparison);
CREATE INDEX answers_model ON answers (model, comparison);
CREATE INDEX comparison_metadata_value ON comparison_metadata (name, value, comparison);
CREATE INDEX votes_job ON votes (job_id, item);
CREATE INDEX votes_comparison ON votes (comparison_id);
CREATE INDEX votes_account ON votes (account_id, number);
CREATE INDEX history_texts_day ON history_texts (day);
CREATE INDEX idempotent_answers_created ON idempotent_answers (created);
COMMIT;
